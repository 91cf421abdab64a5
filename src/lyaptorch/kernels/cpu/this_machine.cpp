// Prints the best instruction set of the machine that compiles the kernels.
#include <cstdio>

#include "machine.h"

int main() { std::fputs(has_avx512() ? "avx512" : has_avx2() ? "avx2" : "baseline", stdout); }
