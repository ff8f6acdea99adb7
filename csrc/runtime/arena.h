// Memory for outputs and scratch: 64-byte aligned, in size classes, kept for reuse and touched once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace pynn::arena {

constexpr size_t kAlignment = 64;
constexpr size_t kLargest = size_t(1) << 46;  // bytes of a block

// At least `bytes` bytes, contents undefined; throws std::bad_alloc. Freed with release().
void* allocate(size_t bytes);
void release(void* block) noexcept;

struct Stats {
  int64_t bytes_reserved;  // taken from the system, in use or kept
  int64_t bytes_in_use;
  int64_t blocks_in_use;
};
Stats stats();

// Scratch that grows to the largest size asked of it and stays with its thread: valid until the next call with this
// slot.
enum class Slot { pack_a, pack_b, split_a, split_b, tile, columns, live, partial };
constexpr size_t kSlots = static_cast<size_t>(Slot::partial) + 1;
void* scratch(Slot slot, size_t bytes);

// The bytes of `count` elements; throws std::bad_alloc for more than a block can have.
template <class T>
size_t bytes_of(int64_t count) {
  if (count < 0 || static_cast<size_t>(count) > kLargest / sizeof(T)) throw std::bad_alloc();
  return static_cast<size_t>(count) * sizeof(T);
}

template <class T>
T* scratch(Slot slot, int64_t count) {
  return static_cast<T*>(scratch(slot, bytes_of<T>(count)));
}

// A block of the arena that returns to it at the end of the scope.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<T*>(allocate(bytes_of<T>(count)))) {}
  ~Buffer() { release(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace pynn::arena
