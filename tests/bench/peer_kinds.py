"""peer_kinds.py - what peers.py measures: how each of the others is asked for attention."""

import subprocess
import sys
import tempfile
import time

AT_LEAST = 5e-3  # seconds of calls in a measurement


class Unsupported(Exception):
    """The peer cannot do a case that it should, or is not there."""


def seconds_of(run, at_least=AT_LEAST):
    """Seconds per call, as bench_attention takes them; as the call says, if it measures itself."""
    start = time.perf_counter()
    calls = batch = 1
    run()
    if hasattr(run, "seconds"):
        return run.seconds
    while True:
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / calls
        for _ in range(batch):
            run()
        calls, batch = calls + batch, 2 * batch


class Peer:
    """One of the others. prepare(case, data) gives a call; result() of what it returns is
    [1, heads, n_q, d_v]."""

    modules = ()

    def does(self, case):
        return True

    def result(self, o):
        return o


class Torch(Peer):
    name = "PyTorch"
    modules = ("torch",)

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.version = torch, torch.__version__

    def prepare(self, case, data):
        if case.kernel_regression:
            return self.kernel_regression(data)
        torch = self.torch
        q, k, v = (torch.from_numpy(x).requires_grad_(case.backward)
                   for x in (data.q, data.k, data.v))
        pairs = torch.from_numpy(data.pairs) if case.pairs else None
        if case.pairs == "bias":
            pairs.requires_grad_(case.backward)
        d_o = torch.from_numpy(data.d_o)
        attend = torch.nn.functional.scaled_dot_product_attention

        def run():
            o = attend(q, k, v, attn_mask=pairs, is_causal=case.causal)
            if case.backward:
                q.grad = k.grad = v.grad = None
                if pairs is not None:
                    pairs.grad = None
                o.backward(d_o)
            return o

        return run if case.backward else self.without_grad(run)

    def without_grad(self, f):
        def run():
            with self.torch.inference_mode():
                return f()

        return run

    def kernel_regression(self, data):
        """In chunks of queries, of the size that is fastest here."""
        torch = self.torch
        q, k, v = (torch.from_numpy(x)[0, 0, :, 0] for x in (data.q, data.k, data.v))
        o = torch.empty_like(q)

        def run_in(chunk):
            def run():
                for i in range(0, len(q), chunk):
                    w = q[i:i + chunk, None] - k
                    w.square_().mul_(-0.5).exp_()
                    o[i:i + chunk] = (w @ v) / w.sum(1)
                return o[None, None, :, None]

            return self.without_grad(run)

        return min((run_in(chunk) for chunk in (4, 16, 64, 256)), key=lambda f: seconds_of(f, 0))

    def result(self, o):
        return o.detach().numpy()


class OnnxRuntime(Peer):
    modules = ("onnx", "onnxruntime")

    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.runtime, self.threads = onnx, onnxruntime, threads
        self.version = onnxruntime.__version__

    def session(self, case, node, domain, opset, shapes):
        helper, types = self.onnx.helper, self.onnx.TensorProto
        real = types.FLOAT if case.dtype == "f32" else types.DOUBLE
        values = [helper.make_tensor_value_info(n, types.BOOL if n == "mask" else real, s)
                  for n, s in shapes.items()]
        graph = helper.make_graph([node], "g", values[:-1], values[-1:])
        opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return self.runtime.InferenceSession(model.SerializeToString(), options,
                                             providers=["CPUExecutionProvider"])

    def bound(self, session, inputs):
        """The call with memory bound once: what costs least for each call."""
        binding = session.io_binding()
        for name, x in inputs.items():
            binding.bind_ortvalue_input(name, self.runtime.OrtValue.ortvalue_from_numpy(x))
        binding.bind_output("o", "cpu")

        def run():
            session.run_with_iobinding(binding)
            return binding

        return run

    def does(self, case):
        return not case.backward and not case.kernel_regression


class OnnxMultiHead(OnnxRuntime):
    name = "ORT MultiHeadAttention"

    def does(self, case):
        return case.pairs != "mask" and super().does(case)

    def prepare(self, case, data):
        self.heads = case.heads
        inputs = {n: getattr(data, n)[0].swapaxes(0, 1).reshape(1, -1, case.heads * d).copy()
                  for n, d in (("q", case.d_k), ("k", case.d_k), ("v", case.d_v))}
        names = ["q", "k", "v"]
        if case.pairs:
            inputs["bias"] = data.pairs
            names += ["", "", "bias"]
        shapes = {n: x.shape for n, x in inputs.items()}
        shapes["o"] = (1, case.n_q, case.heads * case.d_v)
        node = self.onnx.helper.make_node("MultiHeadAttention", names, ["o"],
                                          domain="com.microsoft", num_heads=case.heads,
                                          unidirectional=int(case.causal))
        return self.bound(self.session(case, node, "com.microsoft", 17, shapes), inputs)

    def result(self, binding):
        o = binding.copy_outputs_to_cpu()[0]
        return o.reshape(o.shape[1], self.heads, -1).swapaxes(0, 1)[None]


class OnnxAttention(OnnxRuntime):
    name = "ORT Attention"

    def prepare(self, case, data):
        inputs = {n: getattr(data, n) for n in "qkv"}
        if case.pairs:
            inputs[case.pairs] = data.pairs
        shapes = {n: x.shape for n, x in inputs.items()}
        shapes["o"] = data.d_o.shape
        node = self.onnx.helper.make_node("Attention", list(inputs), ["o"],
                                          is_causal=int(case.causal))
        return self.bound(self.session(case, node, "", 23, shapes), inputs)

    def result(self, binding):
        return binding.copy_outputs_to_cpu()[0]


class OnnxRun(OnnxAttention):
    """The call that most users make, where it is most of the time."""

    name = "ORT Attention, run()"

    def does(self, case):
        return case.tiny and super().does(case)

    def bound(self, session, inputs):
        return lambda: session.run(["o"], inputs)

    def result(self, outputs):
        return outputs[0]


class Jax(Peer):
    name = "JAX"
    modules = ("jax",)

    def __init__(self, threads):
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        self.jax, self.version = jax, jax.__version__

    def prepare(self, case, data):
        jax = self.jax
        if case.kernel_regression:
            return self.kernel_regression(data)
        q, k, v, d_o = (jax.numpy.asarray(x.swapaxes(1, 2))
                        for x in (data.q, data.k, data.v, data.d_o))

        pairs = jax.numpy.asarray(data.pairs) if case.pairs else None
        mask = pairs if case.pairs == "mask" else None
        inputs = (q, k, v, pairs) if case.pairs == "bias" else (q, k, v)

        def attend(q, k, v, bias=None):
            return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask,
                                                is_causal=case.causal)

        def both(*inputs):
            o, pull = jax.vjp(attend, *inputs)
            return o, pull(d_o)

        f = jax.jit(both if case.backward else attend)
        return lambda: jax.block_until_ready(f(*inputs))

    def kernel_regression(self, data):
        jax = self.jax
        q, k, v = (jax.numpy.asarray(x[0, 0, :, 0]) for x in (data.q, data.k, data.v))

        def one(x):
            w = jax.numpy.exp(-0.5 * (x - k) ** 2)
            return w @ v / w.sum()

        f = jax.jit(lambda q: jax.lax.map(one, q, batch_size=16)[None, :, None, None])
        return lambda: jax.block_until_ready(f(q))

    def result(self, o):
        return self.jax.device_get(o[0] if isinstance(o, tuple) else o).swapaxes(1, 2)


class KeOps(Peer):
    name = "KeOps"
    modules = ("pykeops",)

    def __init__(self, threads):
        import pykeops
        from pykeops.numpy import Genred

        self.genred, self.version = Genred, pykeops.__version__

    def does(self, case):
        return case.kernel_regression

    def prepare(self, case, data):
        """The weights' sum rides along as a second value: one pass."""
        np = sys.modules["numpy"]
        f = self.genred("Exp(-SqDist(x, y) / IntCst(2)) * b", ["x = Vi(1)", "y = Vj(1)", "b = Vj(2)"],
                        reduction_op="Sum", axis=1)
        q, k, v = data.q[0, 0], data.k[0, 0], data.v[0, 0]
        values = np.concatenate([v, np.ones_like(v)], 1)

        def run():
            sums = f(q, k, values, backend="CPU")
            return (sums[:, :1] / sums[:, 1:])[None, None]

        return run


class Ksmooth(Peer):
    """R in a process of its own, which measures itself on request. R cuts the kernel off at four
    standard deviations, farther than the data goes: it does the same work."""

    name = "R ksmooth"
    SCRIPT = """
        a <- commandArgs(TRUE); n <- as.integer(a[2:3]); f <- file(a[1], "rb")
        q <- readBin(f, "double", n[1]); k <- readBin(f, "double", n[2]); v <- readBin(f, "double", n[2])
        close(f); asked <- file("stdin", "r")
        while (length(readLines(asked, 1)) > 0) {
            start <- Sys.time()
            o <- ksmooth(k, v, "normal", bandwidth = 1 / 0.3706506, x.points = q)$y
            seconds <- as.numeric(difftime(Sys.time(), start, units = "secs"))
            writeBin(o, a[1]); cat(sprintf("%.9g\\n", seconds)); flush(stdout())
        }"""

    def __init__(self, threads):
        try:
            said = subprocess.run(["Rscript", "--version"], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=True).stdout
        except OSError:
            raise Unsupported("not installed: no Rscript")
        self.version = next((w for w in said.split() if w[0].isdigit()), "?")

    def does(self, case):
        return case.kernel_regression

    def prepare(self, case, data):
        data.q.sort(axis=2)  # ksmooth returns its points sorted; so ours are, too
        self.file = tempfile.NamedTemporaryFile(suffix=".bin")
        self.file.write(data.q.tobytes() + data.k.tobytes() + data.v.tobytes())
        self.file.flush()
        self.process = subprocess.Popen(
            ["Rscript", "-e", self.SCRIPT, self.file.name, str(case.n_q), str(case.n_k)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def run():
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            run.seconds = float(self.process.stdout.readline())
            return case

        return run

    def result(self, case):
        np = sys.modules["numpy"]
        return np.fromfile(self.file.name, np.float64, case.n_q)[None, None, :, None]


PEERS = (Torch, OnnxMultiHead, OnnxAttention, OnnxRun, Jax, KeOps, Ksmooth)
