// Room for intermediate results, kept for the next operator: fresh memory costs more than filling it.

#pragma once

#include <cstddef>
#include <memory>

namespace wootz {

enum class Room { left_operand, right_operand, sums };

// `count` numbers of any value. They hold until this thread asks for the same room again.
inline float* scratch(Room room, std::size_t count) {
  struct Kept {
    std::unique_ptr<float[]> numbers;
    std::size_t count = 0;
  };
  static thread_local Kept rooms[3];
  Kept& kept = rooms[static_cast<int>(room)];
  if (kept.count < count) {
    kept.count = 0;
    kept.numbers.reset();
    kept.numbers.reset(new float[count]);
    kept.count = count;
  }
  return kept.numbers.get();
}

}  // namespace wootz
