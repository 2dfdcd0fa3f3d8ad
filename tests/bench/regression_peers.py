#!/usr/bin/env python3
"""regression_peers.py - kernel regression by others, in turn with ours: same data, same threads.

    tests/bench/regression_peers.py [--build DIR] [--n N] [--repeats N] [--threads N]   (--help)

n rows of one column with a Gaussian kernel: the leave-one-out search of a bandwidth, and a fit at
every row with its gradients at the bandwidth found. Each round measures ours (bench_regression, in
a process of its own that times itself) and every peer once; printed are the medians, the median of
the ratios, and how far the results are apart. Last come bench_regression's own cases, with their
memory.

    statsmodels     pip install statsmodels numpy scipy   KernelReg(reg_type="lc"): bw="cv_ls", and
                                                          fit(), which has means and gradients
    R               apt install r-base-core               ksmooth, which has means alone

Python packages are best put into an environment of their own: python3 -m venv DIR, then DIR/bin/pip
install .., DIR/bin/python tests/bench/regression_peers.py. What is not installed is skipped with a
line that says so. At 10,000 rows statsmodels' search takes about a minute a round.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

NORMAL = 0.3706506  # ksmooth's bandwidth is this much larger than a standard deviation


class Ours:
    def __init__(self, options, folder, np, x, y):
        self.np, self.n, self.threads = np, len(x), options.threads
        self.bench = os.path.join(options.build, "tests", "bench", "bench_regression")
        self.data, self.out = os.path.join(folder, "data.bin"), os.path.join(folder, "out.bin")
        np.concatenate([x, y]).tofile(self.data)

    def measure(self, case, *arguments):
        """Seconds, and the bandwidth."""
        said = subprocess.run([self.bench, "--case", case, "--data", self.data, "--threads",
                               str(self.threads), *arguments], check=True, text=True,
                              stdout=subprocess.PIPE).stdout.split()
        return float(said[0]), float(said[3])

    def search(self):
        return self.measure("search")

    def fit(self, h):
        seconds, _ = self.measure("fit", "--bandwidth", repr(h), "--out", self.out)
        return seconds, self.np.fromfile(self.out)[:self.n]


class Statsmodels:
    name = "statsmodels"

    def __init__(self, np, x, y, folder):
        warnings.simplefilter("ignore")  # of what will be in later versions
        import statsmodels
        from statsmodels.nonparametric.kernel_regression import KernelReg

        self.version, self.kind, self.np, self.x, self.y = (statsmodels.__version__, KernelReg, np,
                                                            x, y)

    def regression(self, bandwidth):
        return self.kind(self.y, self.x, "c", reg_type="lc", bw=bandwidth)

    def search(self):
        start = time.perf_counter()
        found = self.regression("cv_ls")
        return time.perf_counter() - start, float(found.bw[0])

    def fit(self, h):
        regression = self.regression([h])
        start = time.perf_counter()
        mean, _ = regression.fit()
        return time.perf_counter() - start, mean


class Ksmooth:
    name = "R ksmooth"
    search = None
    SCRIPT = """
        a <- commandArgs(TRUE); n <- as.integer(a[2]); f <- file(a[1], "rb")
        x <- readBin(f, "double", n); y <- readBin(f, "double", n); close(f)
        start <- Sys.time()
        o <- ksmooth(x, y, "normal", bandwidth = as.numeric(a[3]), x.points = x)$y
        seconds <- as.numeric(difftime(Sys.time(), start, units = "secs"))
        writeBin(o, a[4]); cat(sprintf("%.9g\\n", seconds))"""

    def __init__(self, np, x, y, folder):
        said = subprocess.run(["Rscript", "--version"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=True).stdout
        self.version = next((w for w in said.split() if w[0].isdigit()), "?")
        self.np, self.n = np, len(x)
        self.data, self.out = os.path.join(folder, "data.bin"), os.path.join(folder, "r.bin")

    def fit(self, h):
        said = subprocess.run(["Rscript", "-e", self.SCRIPT, self.data, str(self.n),
                               repr(h / NORMAL), self.out], check=True, text=True,
                              stdout=subprocess.PIPE).stdout
        return float(said), self.np.fromfile(self.out)


def start_peers(*data):
    peers = []
    for kind in (Statsmodels, Ksmooth):
        try:
            peers.append(kind(*data))
        except (ImportError, OSError) as error:
            print(f"skipped: {kind.name}: not installed: {error}")
    return peers


class Times:
    def __init__(self):
        self.ours, self.theirs = [], []

    def add(self, ours, theirs):
        self.ours.append(ours)
        self.theirs.append(theirs)

    def print(self, what, peer, note):
        ratio = statistics.median(t / o for o, t in zip(self.ours, self.theirs))
        print(f"{what:24} {peer.name + ' ' + peer.version:20} {statistics.median(self.ours):10.4f} "
              f"{statistics.median(self.theirs):10.4f} {ratio:9.1f}  {note}", flush=True)


def compare(ours, peers, repeats, np):
    searches = {p: Times() for p in peers if p.search}
    fits = {p: Times() for p in peers}
    found, apart = {}, {}
    for _ in range(repeats):
        seconds, h = ours.search()
        for peer, times in searches.items():
            theirs, found[peer] = peer.search()
            times.add(seconds, theirs)
        seconds, mean = ours.fit(h)
        for peer, times in fits.items():
            theirs, their_mean = peer.fit(h)
            times.add(seconds, theirs)
            apart[peer] = float(np.abs(mean - their_mean).max())
    print(f"{'':24} {'peer':20} {'ours, s':>10} {'peer, s':>10} {'ratio':>9}")
    for peer, times in searches.items():
        times.print("bandwidth search", peer, f"bandwidths {h:.6g} and {found[peer]:.6g}")
    for peer, times in fits.items():
        times.print("fit with gradients", peer, f"means up to {apart[peer]:.2g} apart")


def parse():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(here, "..", "..", "build"),
                        help="where the library was built")
    parser.add_argument("--n", type=int, default=10000, help="rows (default 10,000)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of ours and of theirs (default 1)")
    return parser.parse_args()


def main():
    options = parse()
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < options.threads:
        sys.exit(f"--threads {options.threads}, but only {len(allowed)} processors")
    os.sched_setaffinity(0, allowed[-options.threads:])
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    try:
        import numpy as np
    except ImportError:
        sys.exit("this needs numpy")
    random = np.random.default_rng(1)
    x = np.sort(random.uniform(0, 10, options.n))  # ksmooth returns its points sorted
    y = np.sin(x) + random.normal(0, 0.5, options.n)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(options, folder, np, x, y)
        peers = start_peers(np, x, y, folder)
        print(f"{options.n} rows, threads: {options.threads}, rounds: {options.repeats}")
        if peers:
            compare(ours, peers, options.repeats, np)
    print(flush=True)
    subprocess.run([ours.bench, "--repeats", str(options.repeats), "--threads",
                    str(options.threads)], check=True)


if __name__ == "__main__":
    main()
