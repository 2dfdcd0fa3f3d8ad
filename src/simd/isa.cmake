# The instruction sets that the tile kernels are built for, as in isa.h: for each, the bytes of a
# vector and what the compiler must be told. QKV_ISAS given: these only.
if(DEFINED QKV_ISAS)
    list(JOIN QKV_ISAS "),X(" each)
    target_compile_options(qkv_options INTERFACE "-DQKV_EACH_ISA(X)=X(${each})")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    set(QKV_ISAS baseline avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(QKV_ISAS neon)
else()
    set(QKV_ISAS baseline)
endif()
set(QKV_BYTES_baseline 16)
set(QKV_FLAGS_baseline "")
set(QKV_BYTES_neon 16)
# Ahead of the registers' allocation, both compilers would load all elements of a product's column at
# once, which takes accumulators out of theirs. The processor finds the order by itself.
set(QKV_FLAGS_neon $<$<C_COMPILER_ID:GNU>:-fno-schedule-insns>
    "SHELL:$<$<C_COMPILER_ID:Clang>:-mllvm -enable-misched=false>")
set(QKV_BYTES_avx2 32)
set(QKV_FLAGS_avx2 -mavx2 -mfma)
set(QKV_BYTES_avx512 64)
set(QKV_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512)

# gcc's loop distribution would tear the exponentials out of the products they are woven into.
set(QKV_TILE_FLAGS -O3 $<$<C_COMPILER_ID:GNU>:-fno-tree-loop-distribution>)
