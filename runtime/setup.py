"""The C extension of remac-runtime; everything else is in pyproject.toml. It is optional: where it cannot be built, NumPy gives the same bytes."""
from __future__ import annotations

import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One build serves Python 3.11 (whose stable ABI was the first with buffers) and all later ones; free-threaded ones have no stable ABI.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildExtension(build_ext):
    """Adds the flags that only Unix compilers know."""

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "unix":
            ext.extra_compile_args = ["-std=c99", "-O3", "-Wall", "-Wextra"]
        super().build_extension(ext)


setup(
    ext_modules=[Extension(
        "remac_runtime._native",
        [f"remac_runtime/csrc/{name}.c" for name in ("module", "module_layers", "remac", "kernels", "analysis", "layers")],
        depends=[f"remac_runtime/csrc/{name}.h" for name in ("binding", "remac", "remac_crc", "remac_x86", "kernels", "kernels_simd", "kernels_tile",
                                                             "analysis", "layers")],
        # REMAC_SIMD 2: every instruction set that the compiler knows is compiled in, the processor's best one is chosen at run time.
        define_macros=[("REMAC_SIMD", "2")] + ([("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else []),
        py_limited_api=STABLE_ABI,
        optional=True,
    )],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
