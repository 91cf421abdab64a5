// Repeats recorded calls of the kernels on memory of exactly their sizes, and compares what comes out:
// replay LIBRARY CALLS. Written for AddressSanitizer and UBSan; see record.py for the file, and
// tests/kernels/test_sanitize.py for how both are used.
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

using Function = int32_t (*)(const void*, int32_t, int32_t);
using Use = int32_t (*)(const char*);
const char* NAMES[] = {"lyap_scan_forward", "lyap_scan_adjoint", "lyap_unroll_forward", "lyap_unroll_adjoint",
                       "lyap_fit", "lyap_descend", "lyap_draw"};
constexpr int KINDS = sizeof NAMES / sizeof *NAMES;
enum Compared { NOT, BYTES, SINGLE, DOUBLE };

struct Buffer {
    int64_t inside, offset, size, given, compared;
    std::vector<char> content, expected;
};

struct Call {
    int64_t name, dual, size;
    std::vector<char> arguments;
    std::vector<Buffer> buffers;
};

std::vector<char> bytes(FILE* file, int64_t count) {
    std::vector<char> read(count);
    if (std::fread(read.data(), 1, count, file) != size_t(count)) std::abort();
    return read;
}

int64_t number(FILE* file) {
    int64_t value;
    std::memcpy(&value, bytes(file, 8).data(), 8);
    return value;
}

bool next(FILE* file, Call& call) {
    if (std::fread(&call.name, 8, 1, file) != 1) return false;
    call.dual = number(file), call.size = number(file);
    call.arguments = bytes(file, call.size);
    call.buffers.assign(number(file), {});
    for (Buffer& b : call.buffers) {
        b.inside = number(file), b.offset = number(file), b.size = number(file), b.given = number(file), b.compared = number(file);
        if (b.given) b.content = bytes(file, b.size);
        if (b.compared) b.expected = bytes(file, b.size);
    }
    return true;
}

// The largest difference over the largest number, or over 1: where a gradient vanishes there is only round-off.
// NaN must stand where NaN is expected.
template <class T> double distance(const std::vector<char>& expected, const char* got) {
    double apart = 0, size = 1;
    for (size_t i = 0; i < expected.size(); i += sizeof(T)) {
        T e, g;
        std::memcpy(&e, &expected[i], sizeof(T)), std::memcpy(&g, got + i, sizeof(T));
        if (std::memcmp(&e, &g, sizeof(T)) == 0 || (std::isnan(e) && std::isnan(g))) continue;
        if (!(std::fabs(e - g) <= apart)) apart = std::fabs(e - g);
        if (std::isnan(apart)) return apart;
        if (std::fabs(e) > size) size = std::fabs(e);
    }
    return apart / size;
}

double run(const Call& call, Function function, int threads) {
    std::vector<char> arguments = call.arguments;
    std::vector<char*> memory;
    for (const Buffer& b : call.buffers) {
        char* at = static_cast<char*>(std::malloc(b.size));
        if (b.size) b.given ? std::memcpy(at, b.content.data(), b.size) : std::memset(at, 0xff, b.size);
        std::memcpy((b.inside < 0 ? arguments.data() : memory[b.inside]) + b.offset, &at, sizeof at);
        memory.push_back(at);
    }
    // on a thread of its own, whose scratch memory is as large as this call needs and no larger
    bool done = false;
    std::thread([&] { done = function(arguments.data(), int32_t(call.dual), threads); }).join();
    double worst = done ? 0 : NAN;
    for (size_t i = 0; i < memory.size(); i++) {
        const Buffer& b = call.buffers[i];
        double apart = 0;
        if (b.compared == BYTES && b.size) apart = std::memcmp(b.expected.data(), memory[i], b.size) ? NAN : 0;
        if (b.compared == SINGLE) apart = distance<float>(b.expected, memory[i]);
        if (b.compared == DOUBLE) apart = distance<double>(b.expected, memory[i]);
        if (!(apart <= worst)) worst = apart;
        std::free(memory[i]);
    }
    return worst;
}

int main(int count, char** words) {
    void* library = count == 3 ? dlopen(words[1], RTLD_NOW) : nullptr;
    FILE* file = count == 3 ? std::fopen(words[2], "rb") : nullptr;
    if (!library || !file) return std::fprintf(stderr, "usage: replay LIBRARY CALLS\n"), 2;
    Function functions[KINDS];
    for (int i = 0; i < KINDS; i++) functions[i] = reinterpret_cast<Function>(dlsym(library, NAMES[i]));
    Use use = reinterpret_cast<Use>(dlsym(library, "lyap_use"));
    Call call;
    int64_t calls = 0, runs = 0, wrong = 0;
    for (; next(file, call); calls++) {
        Function function = functions[call.name];
        for (const char* set : {"avx2", "baseline"})
            if (use(set)) run(call, function, 1), runs++;
        use(nullptr);
        // what was recorded came from the best instruction set, and the number of threads changes no bit
        double apart = run(call, function, 2);
        runs++;
        if (apart <= (call.dual ? 1e-6 : 1e-2)) continue;
        wrong++;
        std::printf("call %ld, %s: apart by %g\n", long(calls), NAMES[call.name], apart);
    }
    std::printf("%ld calls, %ld runs, %ld different\n", long(calls), long(runs), long(wrong));
    std::fclose(file);
    return wrong != 0;
}
