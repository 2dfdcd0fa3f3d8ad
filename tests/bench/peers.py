#!/usr/bin/env python3
"""peers.py - attention by others, in turn with ours: same cases, data, threads and process.

    tests/bench/peers.py [--filter TEXT] [--csv FILE] ..        (--help)

prints how many times our time each peer needs, case by case, and the geometric means. A case is one
of `bench_attention --list`, of those that peers have a word for (ASKED); one whose pass is "backward"
is forward + backward here, since that is what a peer can be asked for. What is not installed, and
what a peer cannot do, is skipped with a line that says so; "backward" and, of MultiHeadAttention, a
boolean mask of ONNX Runtime, and all but kernel regression of KeOps and R, are not asked for. Every
peer's result is compared with ours.

How to install each (Python packages are best put into an environment of their own: python3 -m venv
DIR, then DIR/bin/pip install .., DIR/bin/python tests/bench/peers.py; on Debian, apt install
python3-venv):

    numpy           pip install numpy         needed by all but R
    torch           pip install torch         PyTorch: scaled_dot_product_attention; in chunks for
                                              Nadaraya-Watson. Its Linux wheel brings CUDA: 5 GB
    onnxruntime     pip install onnx onnxruntime
                                              ONNX Runtime: MultiHeadAttention of com.microsoft, and
                                              Attention of ai.onnx from opset 23 on
    jax             pip install jax           JAX: jax.nn.dot_product_attention, jitted
    keops           pip install pykeops       KeOps: Nadaraya-Watson; compiles with g++ (apt install
                                              g++) on first use
    R               apt install r-base-core   ksmooth, in double, against ours in double

Ours is build/libqkv.so through ctypes, but for the tiny cases, where ctypes would be most of the
time: there bench_attention measures itself, once a round. Peers are called as their users call
them, with everything that can be prepared prepared.
"""

import argparse
import ctypes
import importlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

from peer_kinds import PEERS, Ksmooth, Unsupported, seconds_of

SETTLE = 5e-3  # between measurements: another library's idle threads spin a while


# ---- Cases

ASKED = ("dense", "odd", "narrow", "wide", "unequal", "causal", "bias", "mask", "heads", "decode",
         "nadaraya_watson", "tiny")


class Case:
    """One line of bench_attention --list: name/dtype/pass/n_qxn_k/dD[+D][/N heads]."""

    def __init__(self, label):
        self.label = label
        self.name, self.dtype, self.passes, sizes, d, *heads = label.split("/")
        self.n_q, self.n_k = map(int, sizes.split("x"))
        self.d_k, self.d_v = (map(int, d[1:].split("+"))) if "+" in d else (int(d[1:]),) * 2
        self.heads = int(heads[0].split()[0]) if heads else 1
        self.causal = self.name == "causal"
        self.pairs = self.name if self.name in ("bias", "mask") else None  # an array [n_q, n_k]
        self.kernel_regression = self.name.startswith("nadaraya_watson")
        self.tiny = self.name.startswith("tiny")
        self.backward = self.passes == "backward"

    def as_double(self):
        return Case(self.label.replace("/f32/", "/f64/"))

    def row(self):
        return [self.name, self.dtype, self.passes, 1, self.heads, self.n_q, self.n_k, self.d_k,
                self.d_v, int(self.causal)]


def cases(bench, quick):
    listed = subprocess.run([bench, "--list"] + ["--quick"] * quick, check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    return [Case(label) for label in listed.splitlines() if label.startswith(ASKED)]


class Data:
    """q, k, v and the cotangent d_o, [1, heads, n, d]; pairs, [1, 1, n_q, n_k], or None: a bias, or
    which keys are seen, two in three."""

    def __init__(self, case, np):
        random = np.random.default_rng(1)
        real = np.float32 if case.dtype == "f32" else np.float64
        shapes = {"q": (case.n_q, case.d_k), "k": (case.n_k, case.d_k), "v": (case.n_k, case.d_v),
                  "d_o": (case.n_q, case.d_v)}
        for name, shape in shapes.items():
            x = random.uniform(-1, 1, (1, case.heads) + shape).astype(real)
            setattr(self, name, np.ascontiguousarray(x))
        self.pairs = None
        if case.pairs:
            x = random.uniform(-1, 1, (1, 1, case.n_q, case.n_k))
            self.pairs = x < 1 / 3 if case.pairs == "mask" else x.astype(real)


# ---- Ours, through ctypes: the structures of qkv/attention.h


class Mask(ctypes.Structure):
    _fields_ = [("causal", ctypes.c_bool), ("causal_offset", ctypes.c_ssize_t),
                ("leave_one_out", ctypes.c_bool), ("window", ctypes.c_bool),
                ("window_left", ctypes.c_ssize_t), ("window_right", ctypes.c_ssize_t)]


class Attention(ctypes.Structure):
    _fields_ = [(n, ctypes.c_ssize_t) for n in
                ("batch", "heads", "kv_heads", "n_q", "n_k", "d_k", "d_v", "bandwidths")]
    _fields_ += [(n, ctypes.c_int) for n in ("score", "normalize", "kernel")]
    _fields_ += [("open_edge", ctypes.c_bool), ("empty", ctypes.c_int),
                 ("relative_left", ctypes.c_ssize_t), ("relative_right", ctypes.c_ssize_t),
                 ("top_k", ctypes.c_ssize_t), ("mask", Mask), ("softcap", ctypes.c_double),
                 ("dropout", ctypes.c_double), ("dropout_seed", ctypes.c_uint64),
                 ("dropout_offset", ctypes.c_uint32)]


class Slot(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("strided", ctypes.c_bool),
                ("stride", ctypes.c_ssize_t * 4)]


class Operands(ctypes.Structure):
    _fields_ = [(n, Slot) for n in ("q", "k", "v", "bias", "scale", "bandwidth", "w", "slopes",
                                    "relative", "sink", "mask")]
    _fields_ += [(n, ctypes.c_void_p) for n in ("mask_rule", "mask_rule_context", "lengths",
                                                "causal_offsets", "user_score")]


class Results(ctypes.Structure):
    _fields_ = [(n, Slot) for n in ("o", "lse", "row_max", "row_log_sum", "weights")]


def slots(of, **arrays):
    return of(**{name: Slot(data=x.ctypes.data) for name, x in arrays.items()})


class Ours:
    def __init__(self, build, threads):
        self.library = ctypes.CDLL(os.path.join(build, "libqkv.so"))
        self.library.qkv_last_error.restype = ctypes.c_char_p
        self.check(self.library.qkv_set_num_threads(threads))

    def check(self, status):
        if status:
            sys.exit("qkv: " + self.library.qkv_last_error().decode())

    def workspace(self, a, of_pass, dtype, np):
        size = ctypes.c_size_t()
        self.check(self.library.qkv_attention_workspace(
            ctypes.byref(a), of_pass, int(dtype == "f64"), ctypes.byref(size)))
        return np.empty(size.value, np.uint8)

    def prepare(self, case, data, np):
        """A call, and its result."""
        a = Attention(batch=1, heads=case.heads, n_q=case.n_q, n_k=case.n_k, d_k=case.d_k,
                      d_v=case.d_v, score=3 if case.kernel_regression else 0,
                      mask=Mask(causal=case.causal))
        o, row_max, row_log_sum = (np.empty_like(data.d_o) for _ in range(3))
        d = {x: np.zeros_like(getattr(data, x)) for x in "qkv"}
        extra = {case.pairs: data.pairs} if case.pairs else {}
        if case.pairs == "bias":
            d["bias"] = np.zeros_like(data.pairs)
        inputs = slots(Operands, q=data.q, k=data.k, v=data.v, **extra)
        out = slots(Results, o=o, row_max=row_max, row_log_sum=row_log_sum)
        d_out, d_in = slots(Results, o=data.d_o), slots(Operands, **d)
        work = [self.workspace(a, i, case.dtype, np) for i in range(2)]
        memory = [(ctypes.c_void_p(w.ctypes.data), ctypes.c_size_t(w.size)) for w in work]
        forward = getattr(self.library, "qkv_attention_forward_" + case.dtype)
        backward = getattr(self.library, "qkv_attention_backward_" + case.dtype)
        at = ctypes.byref

        def run():
            self.check(forward(at(a), at(inputs), at(out), *memory[0]))
            if case.backward:
                self.check(backward(at(a), at(inputs), at(out), at(d_out), at(d_in), *memory[1]))
            return o

        run.keep = work, d, row_max, row_log_sum
        return run


# ---- Measuring


def tiny_ours(bench, case, threads, folder):
    """bench_attention measures itself: once a round."""
    path = os.path.join(folder, "ours.csv")

    def run():
        subprocess.run([bench, "--filter", case.label, "--repeats", "1", "--csv", path, "--threads",
                        str(threads)], check=True, stdout=subprocess.DEVNULL)
        with open(path) as f:
            names, values = (line.strip().split(",") for line in f)
        run.seconds = float(dict(zip(names, values))["seconds"])

    return run


def measure(ours, run, repeats):
    """The median seconds of ours and of the peer, and the median of their ratios, in turn."""
    times = []
    for _ in range(repeats):
        pair = []
        for f in (ours, run):
            time.sleep(SETTLE)
            pair.append(seconds_of(f))
        times.append((pair[0], pair[1], pair[1] / pair[0]))
    return [statistics.median(column) for column in zip(*times)]


def compare(case, peer, options, ours, np, folder):
    """A peer's row for a case: ours, peer's, ratio, the largest difference of the results."""
    if isinstance(peer, Ksmooth):
        case = case.as_double()
    data = Data(case, np)
    run = peer.prepare(case, data)
    mine = ours.prepare(case, data, np)
    difference = float(np.abs(peer.result(run()) - mine()).max())
    timed = tiny_ours(options.bench, case, options.threads, folder) if case.tiny else mine
    return case, measure(timed, run, options.repeats), difference


def start_peers(options):
    peers = []
    for kind in PEERS:
        try:
            for module in ("numpy",) + kind.modules:
                importlib.import_module(module)
            peers.append(kind(options.threads))
        except ImportError as error:
            print(f"skipped: {kind.name}: not installed ({error})")
        except Unsupported as error:
            print(f"skipped: {kind.name}: {error}")
    return [p for p in peers if options.peers in p.name]


def summary(ratios):
    print()
    for name, of_passes in ratios.items():
        for passes, values in of_passes.items():
            mean = math.exp(statistics.fmean(map(math.log, values)))
            print(f"{name:24} {passes:18} geometric mean {mean:7.2f}, least {min(values):7.2f}, "
                  f"{len(values)} cases")


def parse():
    parser = argparse.ArgumentParser(description="Attention by others, in turn with ours: see the "
                                     "head of this file for what to install.")
    parser.add_argument("--build", default="build", help="where the library was built")
    parser.add_argument("--filter", default="", help="only cases whose label contains it")
    parser.add_argument("--peers", default="", help="only peers whose name contains it")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="of ours and of theirs (default 1)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--csv", help="write the rows there too")
    options = parser.parse_args()
    options.bench = os.path.join(options.build, "tests", "bench", "bench_attention")
    if not os.path.exists(options.bench):
        parser.error(f"{options.bench} is not there: build first, or say --build DIR")
    return options


def limit_threads(threads):
    """For libraries that read it when they start; the processors hold all of them to it."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        sys.exit(f"--threads {threads}, but only {len(allowed)} processors")
    os.sched_setaffinity(0, allowed[-threads:])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"


def main():
    options = parse()
    limit_threads(options.threads)
    peers = start_peers(options)
    csv = open(options.csv, "w") if options.csv else None
    if csv:
        print("case,dtype,pass,batch,heads,n_q,n_k,d_k,d_v,causal,threads,peer,version,seconds,"
              "peer_seconds,ratio", file=csv)
    if peers:
        run_all(options, peers, csv)
    else:
        print("no peer is installed")
    if csv:
        csv.close()


def run_all(options, peers, csv):
    np = sys.modules["numpy"]
    ours = Ours(options.build, options.threads)
    print(", ".join(f"{p.name} {p.version}" for p in peers), f"- threads: {options.threads}")
    print(f"{'case':52} {'peer':24} {'ours, ms':>11} {'peer, ms':>11} {'ratio':>8}")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(options.bench, options.quick):
            if options.filter not in case.label:
                continue
            for peer in filter(lambda p: p.does(case), peers):
                try:
                    of, (mine, theirs, ratio), difference = compare(case, peer, options, ours, np,
                                                                    folder)
                except Exception as error:  # theirs to raise: whatever it is, it is only skipped
                    print(f"{case.label:52} {peer.name:24} skipped: {str(error).splitlines()[0]}")
                    continue
                # Not the same sum in the same order, but the same attention.
                wrong = "" if difference < 1e-3 else f"  THE RESULTS DIFFER BY {difference:.3g}"
                print(f"{of.label:52} {peer.name:24} {1e3 * mine:11.4f} {1e3 * theirs:11.4f} "
                      f"{ratio:8.2f}{wrong}", flush=True)
                kind = "kernel regression" if of.kernel_regression else (
                    "forward + backward" if of.backward else "forward")
                ratios.setdefault(peer.name, {}).setdefault(kind, []).append(ratio)
                if csv:
                    print(*of.row(), options.threads, peer.name, peer.version, f"{mine:.6g}",
                          f"{theirs:.6g}", f"{ratio:.4g}", sep=",", file=csv, flush=True)
    summary(ratios)


if __name__ == "__main__":
    main()
