// Advice to the system about large outputs.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lpm {

// Asks for huge pages under memory that was just allocated and will be written whole. glibc gives allocations above
// 32 MB back to the system at once, so that each step's gradients would fault in again, 4 kB at a time.
inline void advise_huge_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr size_t PAGE = size_t(2) << 20;
    if (bytes < 4 * PAGE) return;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + PAGE - 1) / PAGE * PAGE;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / PAGE * PAGE;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // only advice: it may fail
#else
    (void)memory;
    (void)bytes;
#endif
}

}  // namespace lpm
