// What a library of custom operators needs of ONNX Runtime's C interface, declared here because no package that pip
// installs brings its header. The interface is a table of functions that only ever grows at its end, so that the places
// below hold for every release since 1.17 (version 17 of the interface); tests/runtime/test_kernels.py runs each of them.

#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr std::uint32_t kVersion = 17;

struct Status;  // nullptr: success
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct Shape;  // OrtTensorTypeAndShapeInfo

using Function = void (*)();

struct ApiBase {
  const Function* (*get_api)(std::uint32_t version);
  const char* (*get_version)();
};

enum Place : std::size_t {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelInfoGetAttributeArrayFloat = 162,
  kKernelInfoGetAttributeArrayInt64 = 163,
  kKernelContextParallelFor = 274,
};

enum ErrorCode : int { kInvalidArgument = 2 };
enum ElementType : int { kFloat = 1 };
enum Characteristic : int { kRequired = 0, kVariadic = 2 };

// OrtCustomOp of version 17: the functions that describe an operator, and those that make and run its kernel.
struct CustomOp {
  std::uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Function* api, const KernelInfo*);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_provider)(const CustomOp*);
  ElementType (*get_input_type)(const CustomOp*, std::size_t);
  std::size_t (*get_input_count)(const CustomOp*);
  ElementType (*get_output_type)(const CustomOp*, std::size_t);
  std::size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy)(void* kernel);
  Characteristic (*get_input_characteristic)(const CustomOp*, std::size_t);
  Characteristic (*get_output_characteristic)(const CustomOp*, std::size_t);
  int (*get_input_memory_type)(const CustomOp*, std::size_t);
  int (*get_variadic_input_minimum)(const CustomOp*);
  int (*get_variadic_input_homogeneity)(const CustomOp*);
  int (*get_variadic_output_minimum)(const CustomOp*);
  int (*get_variadic_output_homogeneity)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Function* api, const KernelInfo*, void** kernel);
  Status* (*compute_v2)(void* kernel, KernelContext*);
  Status* (*infer_output_shape)(const CustomOp*, void*);
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
};

}  // namespace ort
