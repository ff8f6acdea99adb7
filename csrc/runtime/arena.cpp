#include "runtime/arena.h"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <pthread.h>
#endif
#if defined(PYNN_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>

#include <cstring>
#endif

namespace pynn::arena {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;

// Stands in front of every block; as long as the alignment, so that the block behind it is aligned.
struct alignas(kAlignment) Header {
  Header* next;
  uint32_t size_class;
};
static_assert(sizeof(Header) == kAlignment);

// Large blocks begin in the middle of a page. Other allocators put large arrays at the start of one: a load just behind
// the place in its page that a store has just written to waits for that store, a quarter of the time of y = f(x).
size_t lead_of(size_t size) { return size < 32768 ? 0 : 2048; }

// Four classes per power of two: at most a quarter of a block is unused, and unused pages are never touched.
uint32_t size_class_of(size_t bytes) {
  if (bytes <= kAlignment) return 0;
  const int exponent = 63 - __builtin_clzll(bytes - 1);  // 2^exponent < bytes <= 2^(exponent + 1)
  const size_t quarter = size_t(1) << (exponent - 2);
  const size_t step = (bytes - 1 - (size_t(1) << exponent)) / quarter;
  return static_cast<uint32_t>((exponent - 6) * 4 + step + 1);
}

size_t size_of_class(uint32_t size_class) {
  if (size_class == 0) return kAlignment;
  const uint32_t exponent = (size_class - 1) / 4 + 6, step = (size_class - 1) % 4;
  return (size_t(1) << exponent) + (step + 1) * (size_t(1) << (exponent - 2));
}

// AddressSanitizer takes a block of `size` bytes for as long as was asked, and the content it begins with is NaN: what
// reads beyond it, after its release, or before it writes fails a test.
void only_usable([[maybe_unused]] void* block, [[maybe_unused]] size_t bytes, [[maybe_unused]] size_t size) {
#if defined(PYNN_ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(block, bytes);
  std::memset(block, 0xff, bytes);
  __asan_poison_memory_region(static_cast<char*>(block) + bytes, size - bytes);
#endif
}

class Arena {
 public:
  void* allocate(size_t bytes) {
    if (bytes > kLargest) throw std::bad_alloc();
    const uint32_t size_class = size_class_of(bytes);
    const size_t size = size_of_class(size_class);
    Header* header;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      header = free_[size_class];
      if (header != nullptr) {
        free_[size_class] = header->next;
        count(size, 1);
      }
    }
    if (header == nullptr) {
      header = from_system(size);
      header->size_class = size_class;
    }
    only_usable(header + 1, bytes, size);
    return header + 1;
  }

  void release(void* block) noexcept {
    Header* header = static_cast<Header*>(block) - 1;
    only_usable(block, 0, size_of_class(header->size_class));
    const std::lock_guard<std::mutex> lock(mutex);
    header->next = free_[header->size_class];
    free_[header->size_class] = header;
    count(size_of_class(header->size_class), -1);
  }

  std::mutex mutex;
  Stats stats{};

 private:
  void count(size_t size, int blocks) {  // with the lock held
    stats.bytes_in_use += blocks * static_cast<int64_t>(size);
    stats.blocks_in_use += blocks;
  }

  Header* from_system(size_t size) {
    const size_t lead = lead_of(size), bytes = lead + sizeof(Header) + size;
    const bool huge = bytes >= kHugePage;
    void* memory = nullptr;
    if (posix_memalign(&memory, huge ? kHugePage : kAlignment, bytes) != 0) {
      give_back_free_blocks();
      if (posix_memalign(&memory, kAlignment, bytes) != 0) throw std::bad_alloc();
    }
#if defined(MADV_HUGEPAGE)
    if (huge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    const std::lock_guard<std::mutex> lock(mutex);
    stats.bytes_reserved += static_cast<int64_t>(size);
    count(size, 1);
    return reinterpret_cast<Header*>(static_cast<char*>(memory) + lead);
  }

  void give_back_free_blocks() {
    const std::lock_guard<std::mutex> lock(mutex);
    for (uint32_t c = 0; c < free_.size(); ++c) {
      while (Header* header = free_[c]) {
        free_[c] = header->next;
        stats.bytes_reserved -= static_cast<int64_t>(size_of_class(c));
        std::free(reinterpret_cast<char*>(header) - lead_of(size_of_class(c)));
      }
    }
  }

  std::array<Header*, 192> free_{};
};

// Never destroyed: arrays may outlive every static of this library.
Arena& arena() {
  static Arena* instance = [] {
    auto* made = new Arena;
#if defined(__linux__)
    // A fork while another thread holds the lock would leave it locked in the child for ever.
    pthread_atfork([] { arena().mutex.lock(); }, [] { arena().mutex.unlock(); }, [] { arena().mutex.unlock(); });
#endif
    return made;
  }();
  return *instance;
}

class ThreadScratch {
 public:
  ThreadScratch() = default;
  ThreadScratch(const ThreadScratch&) = delete;
  ThreadScratch& operator=(const ThreadScratch&) = delete;
  ~ThreadScratch() {
    for (const Piece& piece : pieces_) {
      if (piece.data != nullptr) arena().release(piece.data);
    }
  }

  void* get(Slot slot, size_t bytes) {
    Piece& piece = pieces_[static_cast<size_t>(slot)];
    if (piece.bytes < bytes) {
      if (piece.data != nullptr) arena().release(piece.data);
      piece = {};
      piece.data = arena().allocate(bytes);
      piece.bytes = bytes;
    }
    only_usable(piece.data, bytes, piece.bytes);
    return piece.data;
  }

 private:
  struct Piece {
    void* data = nullptr;
    size_t bytes = 0;
  };
  std::array<Piece, kSlots> pieces_{};
};

}  // namespace

void* allocate(size_t bytes) { return arena().allocate(bytes); }
void release(void* block) noexcept { arena().release(block); }

Stats stats() {
  const std::lock_guard<std::mutex> lock(arena().mutex);
  return arena().stats;
}

void* scratch(Slot slot, size_t bytes) {
  static thread_local ThreadScratch scratch;
  return scratch.get(slot, bytes == 0 ? 1 : bytes);
}

}  // namespace pynn::arena
