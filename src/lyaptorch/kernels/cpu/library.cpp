// The C interface: picks the instruction set and shares units of work among threads. Which thread does a unit
// never changes what it computes.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "abi.h"
#include "machine.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

extern const InstructionSet baseline, avx2, avx512;

namespace {

// The named one, the best for null; null if it was not compiled, or this machine lacks it.
const InstructionSet* find(const char* name) {
    [[maybe_unused]] auto is = [&](const char* set) { return !name || !std::strcmp(name, set); };
#ifdef HAVE_avx512
    if (has_avx512() && is("avx512")) return &avx512;
#endif
#ifdef HAVE_avx2
    if (has_avx2() && is("avx2")) return &avx2;
#endif
#ifdef HAVE_baseline
    if (is("baseline")) return &baseline;
#endif
    return nullptr;
}

std::atomic<const InstructionSet*> chosen{nullptr};

const InstructionSet& current() {
    const InstructionSet* set = chosen.load();
    if (!set) chosen.store(set = find(nullptr));
    return *set;
}

const Precision& kernels(const FormArgs& form, int32_t dual) {
    const InstructionSet& set = current();
    // GRU and LSTM of gates.h
    return (form.neurons & 32 ? set.gru : form.neurons & 64 ? set.lstm : form.neurons ? set.lif : set.form)[dual != 0];
}

// Scratch memory of a thread, kept from call to call: fresh pages cost more than the work of a small network.
struct Scratch {
    static constexpr size_t KEPT = size_t(1) << 26;
    void* memory = nullptr;
    size_t size = 0;

    void* take(size_t bytes) {
        if (bytes > size) {
            drop();
            memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
            size = memory ? bytes : 0;
        }
        return memory;
    }
    void done() {
        if (size > KEPT) drop();
    }
    void drop() {
        std::free(memory);
        memory = nullptr;
        size = 0;
    }
    ~Scratch() { drop(); }
};

thread_local Scratch scratch;

// The threads of torch, if it brought its OpenMP into this process: they may still spin after its last operation, and
// threads of our own would wait for their cores. None in a forked child, where those threads are gone.
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);
const pid_t loaded_in = getpid();

Team team() {
    static const Team found = (Team)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    return getpid() == loaded_in ? found : nullptr;
}

// Calls `loop` in up to `threads` threads at once, this one among them.
template <class Loop>
void together(Loop& loop, int64_t threads) {
    if (threads <= 1) return loop();
    if (Team borrowed = team()) return borrowed([](void* l) { (*(Loop*)l)(); }, &loop, unsigned(threads), 0);
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads; i++) others.emplace_back(std::ref(loop));
    } catch (const std::exception&) {  // fewer threads do the same
    }
    loop();
    for (auto& thread : others) thread.join();
}

// Every unit once; false if there is no memory. `last_first`: what was written last may still be in a cache.
bool run(Task task, const void* args, int64_t units, int64_t bytes, int64_t threads, bool last_first = false) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> starved{false};
    auto loop = [&] {
        void* work = scratch.take(static_cast<size_t>(bytes));
        if (!work) {
            starved = true;
            return;
        }
        for (int64_t i; (i = next++) < units;) task(args, last_first ? units - 1 - i : i, work);
        scratch.done();
    };
    together(loop, std::min(threads, units));
    return !starved;
}

}  // namespace

EXPORT int32_t lyap_version() { return 8; }
// Null if it was compiled for machines that have more than this one: then nothing else may be called.
EXPORT const char* lyap_instruction_set() { return find(nullptr) ? current().name : nullptr; }

// Uses the named instruction set from now on, the best one for null; 0 if this machine lacks it.
EXPORT int32_t lyap_use(const char* name) {
    const InstructionSet* set = find(name);
    if (set) chosen.store(set);
    return set != nullptr;
}

// Asks for large pages of fresh memory, where the system has them: first touches of small ones are slow.
EXPORT void lyap_large_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t PAGE = uintptr_t(1) << 21;
    uintptr_t from = ((uintptr_t)memory + PAGE - 1) / PAGE * PAGE, to = ((uintptr_t)memory + bytes) / PAGE * PAGE;
    if (from < to) madvise((void*)from, to - from, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

EXPORT double lyap_peak(int32_t dual, int64_t rounds) { return current().form[dual != 0].peak(rounds); }

// Bytes of the tape; the adjoint needs the one that the forward pass wrote, untouched.
EXPORT int64_t lyap_scan_tape(const ScanArgs* a, int32_t dual) { return kernels(a->form, dual).scan_tape(*a); }
EXPORT int64_t lyap_unroll_tape(const UnrollArgs* a, int32_t dual) { return kernels(a->form, dual).unroll_tape(*a); }

EXPORT int32_t lyap_scan_forward(const ScanArgs* a, int32_t dual, int32_t threads) {
    const Precision& p = kernels(a->form, dual);
    return run(p.scan_forward, a, a->form.members * a->form.batch, p.scan_work(*a), threads);
}

EXPORT int32_t lyap_scan_adjoint(const ScanArgs* a, int32_t dual, int32_t threads) {
    const Precision& p = kernels(a->form, dual);
    return run(p.scan_adjoint, a, a->form.members * a->form.batch, p.scan_work(*a), threads, true) &&
           run(p.scan_reduce, a, a->form.members, 64, threads);
}

EXPORT int32_t lyap_unroll_forward(const UnrollArgs* a, int32_t dual, int32_t threads) {
    const Precision& p = kernels(a->form, dual);
    return run(p.unroll_forward, a, p.unroll_units(*a), p.unroll_work(*a), threads);
}

EXPORT int32_t lyap_unroll_adjoint(const UnrollArgs* a, int32_t dual, int32_t threads) {
    const Precision& p = kernels(a->form, dual);
    return run(p.unroll_adjoint, a, p.unroll_units(*a), p.unroll_work(*a), threads, true) &&
           run(p.unroll_reduce, a, a->form.members, 64, threads);
}

EXPORT int64_t lyap_fit_tape(const FitArgs* a, int32_t dual) { return kernels(a->unroll.form, dual).fit_tape(*a); }

EXPORT int32_t lyap_fit(const FitArgs* a, int32_t dual, int32_t threads) {
    const Precision& p = kernels(a->unroll.form, dual);
    return run(p.fit, a, p.unroll_units(a->unroll), p.fit_work(*a), threads) &&
           run(p.fit_conclude, a, a->unroll.form.members, 64, threads);
}

EXPORT int32_t lyap_draw(const DrawArgs* a, int32_t dual, int32_t threads) {
    const Common& c = current().common[dual != 0];
    return run(c.draw, a, c.draw_units(*a), 64, threads);
}

// Moves nothing where a gradient is not finite: `fine` tells.
EXPORT int32_t lyap_descend(const DescentArgs* a, int32_t dual, int32_t threads) {
    const Common& c = current().common[dual != 0];
    if (!run(c.measure, a, a->members, 64, threads)) return 0;
    bool fine = std::all_of(a->fine, a->fine + a->members, [](uint8_t one) { return one != 0; });
    return !fine || run(c.move, a, a->members, 64, threads, true);
}
