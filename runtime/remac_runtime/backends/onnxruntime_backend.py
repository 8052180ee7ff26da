"""The exported graphs in ONNX Runtime: the fastest backend where c99 has no kernel for the processor that beats it (`available_backend`)."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from remac_runtime.backends.base import Array, Backend
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.network import Network
from remac_runtime.topology import INPUTS

OPTIMISATION_LEVELS = ("disabled", "basic", "extended", "all")
HASH_PROPERTY = "codec_hash"      # of the files' metadata: 16 hex digits, the hash of the network file they were exported from


def session_options(engine: Any, threads: int, level: str = "all", arena: bool = True) -> Any:
    """Options of a session: operators one after the other in `threads` threads, that leave the other cores alone."""
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = engine.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(engine.GraphOptimizationLevel, {
        "disabled": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}[level])
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False                                          # the sizes change from picture to picture
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")    # leave the other cores alone between operators
    options.log_severity_level = 3
    return options


class OnnxRuntimeBackend(Backend):
    """One session a graph, opened when it is first used; operators run one after the other in `threads` threads.

    `level` is one of OPTIMISATION_LEVELS; `arena` keeps freed memory for the next run, which is a little faster and holds more memory.
    """

    name = "onnxruntime"

    def __init__(self, folder: Path, network: Network, threads: int = 1, *, level: str = "all", arena: bool = True) -> None:
        super().__init__(network)
        try:
            import onnxruntime
        except ImportError:
            raise RemacError("the onnxruntime backend needs onnxruntime: pip install onnxruntime, or choose the numpy backend") from None
        self._engine: Any = onnxruntime
        self._folder, self._threads, self._level, self._arena = folder, threads, level, arena
        self._sessions: dict[str, Any] = {}

    def _session(self, graph: str) -> Any:
        if graph not in self._sessions:
            path = self._folder / f"{graph}.onnx"
            if not path.exists():
                raise BadNetwork(f"{path}: missing: build the model with `make encoder`, or choose the numpy backend")
            options = session_options(self._engine, self._threads, self._level, self._arena)
            try:
                session = self._engine.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:      # the engine's errors share no public base class
                raise BadNetwork(f"{path}: not a graph that onnxruntime {self._engine.__version__} can run ({first_line(error)})") from None
            made_for = session.get_modelmeta().custom_metadata_map.get(HASH_PROPERTY, "nothing")
            if made_for != self.network.hash.hex():
                raise BadNetwork(f"{path}: made for codec {made_for}, the network is {self.network.hash.hex()}: build both together")
            self._sessions[graph] = session
        return self._sessions[graph]

    def compute(self, graph: str, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        session = self._session(graph)
        try:
            return tuple(session.run(None, dict(zip(INPUTS[graph], inputs, strict=True))))
        except Exception as error:          # out of memory, or a file with other inputs
            raise RemacError(f"{self._folder / graph}.onnx: onnxruntime failed ({first_line(error)})") from None

    def close(self) -> None:
        self._sessions.clear()


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
