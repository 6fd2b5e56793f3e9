// Work divided over the threads of ONNX Runtime's session.

#pragma once

#include <cstddef>
#include <type_traits>

#include "onnxruntime_abi.h"

namespace wootz {

class Threads {
 public:
  Threads(const ort::Function* api, const ort::KernelContext* context) : api_(api), context_(context) {}

  // Calls task(i) for each i < count, on any threads, in any order. What is computed mustn't depend on either.
  template <typename Task>
  void run(std::size_t count, Task&& task) const {
    if (count == 0) return;
    if (count == 1) {
      task(std::size_t{0});
      return;
    }
    using ParallelFor =
        ort::Status* (*)(const ort::KernelContext*, void (*)(void*, std::size_t), std::size_t, std::size_t, void*);
    const auto parallel_for = reinterpret_cast<ParallelFor>(api_[ort::kKernelContextParallelFor]);
    auto call = [](void* data, std::size_t i) { (*static_cast<std::remove_reference_t<Task>*>(data))(i); };
    parallel_for(context_, call, count, 0, &task);
  }

 private:
  const ort::Function* api_;
  const ort::KernelContext* context_;
};

}  // namespace wootz
