// The pages that packed weights lie in. A lone row reads all weights once, and from small pages that takes an eighth
// (Q4_K) to a third (Q8_0) longer than from huge ones. But a system may be slow to give huge pages: a virtual machine
// has to ask its host for them (4 ms each, where small pages are at hand), others have to move what lies in between.
// A start does not wait for that. It takes small pages, and a thread of its own puts huge ones in their place later.
#pragma once

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <signal.h>
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // since Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // since Linux 6.1
#endif
#endif

namespace llamabox {

static constexpr size_t HUGE_PAGE = 2 * 1024 * 1024;

#ifdef __linux__

// Processor time in ns that the first access to a huge page takes where the system has to look for it. To clear one
// takes a tenth of that.
static constexpr int64_t PATIENCE = 1'000'000;
// Slow pages of a buffer, after which the rest of it is small.
static constexpr int ENOUGH = 4;

// The huge pages of all buffers. Its functions may be called from any thread.
class Pages {
  public:
    // Let the memory of a new buffer consist of huge pages, where the system leaves that to programs. Best effort.
    static void take(void * base, size_t size) {
        char * const first = (char *) (((uintptr_t) base + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        char * const last  = (char *) (((uintptr_t) base + size) / HUGE_PAGE * HUGE_PAGE);
        if (first < last && madvise(first, last - first, MADV_HUGEPAGE) == 0) {
            Pages &                     all = pages();
            std::lock_guard<std::mutex> held(all.lock);
            all.areas.push_back({ first, last, first, 0, false });
        }
    }

    // Forget a buffer, which is about to be freed.
    static void leave(const void * base, size_t size) {
        Pages &                     all = pages();
        std::lock_guard<std::mutex> held(all.lock);
        const auto is_in = [&](const Area & area) { return base <= area.first && area.last <= (char *) base + size; };
        all.areas.erase(std::remove_if(all.areas.begin(), all.areas.end(), is_in), all.areas.end());
    }

    // Call before the `size` bytes at `start` are written for the first time.
    static void enter(uint8_t * start, size_t size) {
        uint8_t * const page = (uint8_t *) ((uintptr_t) (start + size - 1) / HUGE_PAGE * HUGE_PAGE);
        if (page < start) {
            return;
        }
        count(pages().n_packed);
        if (pages().is_small((char *) page)) {
            madvise(page, HUGE_PAGE, MADV_POPULATE_WRITE); // in place of 512 faults
            return;
        }
        const int64_t before       = now();
        *(volatile uint8_t *) page = 0;
        if (now() - before > pages().patience.load(std::memory_order_relaxed)) {
            pages().came_slowly((char *) page);
        }
    }

    // Call with each product.
    static void at_work() { count(pages().n_products); }

    // Set the processor time that a page may take, in ns.
    static void have_patience(int64_t ns) { pages().patience.store(ns, std::memory_order_relaxed); }

  private:
    struct Area {
        char * first;
        char * last;
        char * next; // what lies before it is in huge pages again
        int    n_slow;
        bool   is_small;
    };

    // Not exact where threads count at once: what is asked is whether the number changes.
    static void count(std::atomic<uint32_t> & n) {
        n.store(n.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    static Pages & pages() {
        static Pages * all = new Pages; // never deleted: the thread may outlive static objects
        return *all;
    }

    // Not the clock: a machine that is busy with others is not short of pages.
    static int64_t now() {
        timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return (int64_t) time.tv_sec * 1'000'000'000 + time.tv_nsec;
    }

    bool is_small(const char * page) {
        std::lock_guard<std::mutex> held(lock);
        return std::any_of(areas.begin(), areas.end(), [&](const Area & area) {
            return area.is_small && area.first <= page && page < area.last;
        });
    }

    void came_slowly(char * page) {
        std::lock_guard<std::mutex> held(lock);
        for (Area & area : areas) {
            if (area.first <= page && page < area.last && ++area.n_slow == ENOUGH) {
                is_mending    = is_mending || start();
                area.is_small = is_mending && madvise(area.first, area.last - area.first, MADV_NOHUGEPAGE) == 0;
            }
        }
    }

    // Start the thread that mends, with all signals blocked: they are for the program's own threads. False where there
    // may be no more threads: then huge pages are waited for.
    static bool start() {
        sigset_t every, before;
        sigfillset(&every);
        pthread_sigmask(SIG_SETMASK, &every, &before);
        bool is_started = true;
        try {
            std::thread([] { pages().mend(); }).detach();
        } catch (const std::system_error &) {
            is_started = false;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return is_started;
    }

    // Put huge pages in the place of small ones until there are none left: one after the other while nothing is
    // computed, and ten a second beside that, since what reads the page at hand waits for it.
    void mend() {
        while (changes(n_packed, 1000)) {
            // The model is not there yet.
        }
        do {
            if (changes(n_products, 5)) {
                rest(95);
            }
        } while (mend_one());
    }

    // Whether a count changes in so many milliseconds.
    static bool changes(const std::atomic<uint32_t> & n, int ms) {
        const uint32_t before = n.load(std::memory_order_relaxed);
        rest(ms);
        return n.load(std::memory_order_relaxed) != before;
    }

    static void rest(int ms) { usleep((useconds_t) ms * 1000); }

    bool mend_one() {
        std::lock_guard<std::mutex> held(lock);
        for (Area & area : areas) {
            if (area.is_small) {
                char * const page = area.next;
                area.next += HUGE_PAGE;
                area.is_small = area.next < area.last;
                madvise(page, HUGE_PAGE, MADV_HUGEPAGE); // what fails below is khugepaged's work
                madvise(page, HUGE_PAGE, MADV_COLLAPSE);
                return true;
            }
        }
        return is_mending = false;
    }

    std::mutex            lock; // of areas and is_mending
    std::vector<Area>     areas;
    bool                  is_mending = false;
    std::atomic<uint32_t> n_packed{ 0 };   // pages that were packed
    std::atomic<uint32_t> n_products{ 0 };
    std::atomic<int64_t>  patience{ PATIENCE };
};

#else

class Pages {
  public:
    static void take(void *, size_t) {}
    static void leave(const void *, size_t) {}
    static void enter(uint8_t *, size_t) {}
    static void at_work() {}
    static void have_patience(int64_t) {}
};

#endif

} // namespace llamabox
