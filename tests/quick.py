"""How the tests compile: that is most of their cost, and their programs run for milliseconds.

So XLA compiles without LLVM's optimisation, each program as one piece, and without the MLIR
emitters of fusions where this jaxlib lets one choose: together a third of the time.
"""

import jaxlib

FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if jaxlib.__version__.startswith("0.10."):  # an unknown flag ends the process
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
XLA_FLAGS = " ".join(FLAGS)
