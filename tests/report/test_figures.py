"""Every figure on the page is the record's: read back from the HTML, against what was written by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from rir_deploy.report.console import show
from rir_deploy.report.html import render
from rir_deploy.report.markdown import to_markdown
from rir_deploy.report.plots_spread import histogram
from rir_deploy.report.schema import read_run
from rir_deploy.report.sections import sections
from tests.report.page import Page, read
from tests.report.sample import CHECKPOINT, FOREIGN, FP32, engines, proof, sample, timed


@pytest.fixture(scope="module")
def page() -> Page:
    return read(render(sample()))


def test_summary(page: Page) -> None:
    for words in (
        "PASSED All 2 engines that were run here answer as the checkpoint does; 1 more could be built but not run here",
        "Parity passed 2 of 3 engines 1 built, not run; 1 passed by simulation",
        "Convolutions 20 → 6 nodes 52 → 12",
        "Largest top-1 drop 0.28 points openvino-int8: 99.17 % → 98.89 %",
        "Smallest engine 61.2 kB openvino-int8",
        "Fastest at batch 1 0.021 ms openvino-int8: 38.8× PyTorch eager",  # 0.815 / 0.021
        "INT8, folded to unfolded 2.00× as fast "
        "openvino: folded is better at agreement, latency, size, unfolded at SQNR",
    ):
        assert " ".join(words.split()) in page.flat


def test_model_and_machine(page: Page) -> None:
    assert dict(page.tables["model"][1:]) == {  # type: ignore[arg-type]
        "checkpoint": "training/model.safetensors",
        "sha256": "abababababab",
        "layout": "rir-deploy",
        "parameters": "19,434",
        "top-1 recorded by the training": "99.17 %",
        "recipe": "digits",
        "images of the parity proof": "digits:test",
        "ONNX opset": "20",
        "export": "7.4 s",
        "exported graph against PyTorch": "passed 100 images of digits:test: agreement 100.00 %, "
        "largest error 2.86e-06",
        "calibration": "512 images of digits:train, minmax",
    }
    assert page.row("machine", "CPU") == ["Imaginary 9000"]
    assert page.row("machine", "CPU features") == ["AVX2, AVX512-VNNI"]
    assert page.row("machine", "memory") == ["25.3 GB"]
    assert page.row("bench-machine", "CPU") == ["Other 7"]


def test_fold(page: Page) -> None:
    assert page.tables["fold"] == [
        ["count", "before", "after", "change"],
        ["convolutions", "20", "6", "-70.0 %"],
        ["nodes", "52", "12", "-76.9 %"],
        ["multiply-adds an image", "532,480", "530,432", "-0.4 %"],
        ["parameters", "19,435", "19,018", "-2.1 %"],
        ["weights", "77.7 kB", "76.1 kB", "-2.1 %"],
    ]
    assert page.tables["refused"][1:] == [["fold", "it averages over padding", "1", "Pool_3"]]


def test_graphs(page: Page) -> None:
    assert page.row("graphs", "fp32") == ["fp32", "–", "80.9 kB", "0", "graphs/fp32.onnx", "cdcdcdcdcdcd"]
    assert page.row("graphs", "int8-cpu-unfolded")[2:4] == ["51.2 kB", "0"]
    assert page.row("graphs", "int8-cpu") == ["int8", "cpu", "38.1 kB", "1", "graphs/int8-cpu.onnx", "efefefefefef"]
    assert page.tables["kept"][1:] == [["int8-cpu", "one input channel", "1", "Conv_0"]]


def test_engines(page: Page) -> None:
    assert page.tables["engines"] == [
        [
            *("engine", "backend", "precision", "size", "build (s)", "top-1 reference", "top-1 engine"),
            *("drop (points)", "agreement", "max error", "SQNR (dB)", "parity"),
        ],
        [
            *("openvino-fp32", "openvino", "fp32", "116.0 kB", "0.13", "99.17 %", "99.19 %"),
            *("-0.02", "99.73 %", "3.81e-06", "130.1", "passed it computes in BF16"),
        ],
        [
            *("openvino-int8", "openvino", "int8", "61.2 kB", "0.48", "99.17 %", "98.89 %"),
            *("0.28", "99.73 %", "2.15e-01", "28.3", "passed"),
        ],
        [
            *("tensorrt-rtx-fp16", "tensorrt-rtx", "fp16", "2.5 MB", "4.37", "99.17 %", "99.05 %"),
            *("0.12", "99.73 %", "1.71e-02", "61.9", "built, not run: no GPU simulation: passed"),
        ],
    ]


def test_proofs_and_runtimes(page: Page) -> None:
    assert page.row("proofs", "openvino-int8") == [
        *("359", "100.00 %", "99.96 %", "6.32e-07"),
        "int8 agreement ≥ 97.10 %, drop ≤ 1.02 points, rtol 0.0003",
        *("torch 2.13 cpu eager", "runtime 7.8.9 CPU"),
    ]
    assert page.row("proofs", "tensorrt-rtx-fp16")[-1] == (
        "simulation: its graph, in runtime 7.8.9 not the engine itself"
    )
    assert page.row("runtimes", "tensorrt-rtx-fp16") == [
        *("tensorrt-rtx 7.8.9", "–", "sm86, sm89"),
        "hint f32, conv i8 6",
    ]


def test_latency(page: Page) -> None:
    assert page.row("latency", "PyTorch eager") == [
        *("pytorch", "fp32", "1", "0.815", "0.913", "0.978", "1.516", "3.032", "–", "1,227", "1.00×"),
    ]
    assert page.row("latency", "openvino-int8", skip=1) == [
        *("openvino", "int8", "8", "0.099", "0.111", "0.119", "0.184", "0.368", "–", "80,808", "11.12×"),
    ]
    assert page.row("latency", "tensorrt-rtx-fp16 not run") == ["tensorrt-rtx", "fp16", "1", *["–"] * 8]
    assert page.row("load", "openvino-int8") == ["1", "–", "17.3", "–", "–", "–"]
    assert page.titles["latency/2/engine"] == "engines/openvino-int8"
    assert "speed-up by median over PyTorch eager" in page.text
    assert page.tables["settings"][1:] == [
        ["warmup (ms)", "200"],
        ["rounds", "3"],
        ["batches", "1, 8"],
        ["mode", "synchronous"],
    ]
    assert "the machine was busy before the start" in page.text
    assert "PyTorch eager at batch 8: wide spread" in page.text


def test_the_spread_of_calls_is_in_every_form_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """0.0717 ms of 0.815 are 8.797 %; 0.0105 of 0.021 are half."""
    run = sample()
    for index, iqr in ((0, 0.0717), (1, 0.0105)):
        run["bench"]["results"][index]["latency_ms"]["iqr"] = iqr
    run["bench"]["results"][4]["latency_ms"] |= {"median": 0.0, "iqr": 0.0}
    page = read(render(run))
    spread = page.tables["latency"][0].index("IQR (%)")
    assert [row[spread] for row in page.tables["latency"][1:]] == ["8.8", "50.0", "–", "–", "–", "–", "–"]
    (table,) = [one for part in sections(read_run(run)) for one in part.tables if one.name == "latency"]
    show(table)
    for words in (capsys.readouterr().out, to_markdown(read_run(run))):
        assert "IQR (%)" in words
        assert re.search(r"PyTorch eager .* 3\.032 +\S +8\.8 +\S +1,227", words)


def test_what_an_engine_costs_before_it_answers() -> None:
    run = sample()
    start = {"import_ms": 345.64, "first_inference_ms": 2.71, "peak_memory_mb": 211.87, "engine_memory_mb": 34.56}
    run["bench"]["results"][1] |= start
    run["bench"]["results"][3] |= {"import_ms": 1.0, "engine_memory_mb": None}
    page = read(render(run))
    titles = ["import (ms)", "load (ms)", "first inference (ms)", "peak memory (MB)", "of that the engine (MB)"]
    assert page.tables["load"][0] == ["engine", "batch", *titles]
    assert page.row("load", "openvino-int8") == ["1", "345.6", "17.3", "2.7", "211.9", "34.6"]
    assert page.row("load", "openvino-int8-unfolded") == ["1", "1.0", "17.3", "–", "–", "–"]


def on_gpu(**values: Any) -> dict[str, Any]:
    """A row of TensorRT-RTX, by hand: medians of 0.11, 0.52, 0.07 and 0.09 ms."""
    row = timed("engines/tensorrt-rtx-fp16", "tensorrt-rtx", "fp16", 1, (0.74, 0.75, 0.76, 0.77), 1351.4, 1.0)
    parts = {"upload": 0.1104, "compute": 0.5226, "download": 0.0715, "enqueue": 0.0937}
    gpu = {
        part: {"min": ms / 2, "mean": 3 * ms, "median": ms, "p90": 4 * ms, "p95": 5 * ms, "p99": 6 * ms, "max": 7 * ms}
        for part, ms in parts.items()
    }
    return row | {"gpu_ms": gpu, "cuda_graph": False, "transfers": True} | values


def test_times_by_cuda_events_are_shown_where_there_are_some() -> None:
    run = sample()
    bare = {part: figures for part, figures in on_gpu()["gpu_ms"].items() if part in ("compute", "enqueue")}
    run["bench"]["results"] += [
        on_gpu(),
        on_gpu(mode="pipelined", streams=2, cuda_graph=True, batch=8),
        on_gpu(engine="engines/other", gpu_ms=bare, transfers=False),
    ]
    run["bench"]["results"][2] |= {"cuda_graph": False, "transfers": True}  # not run: it has no times
    page = read(render(run))
    assert page.tables["gpu"] == [
        [
            *("engine", "batch", "upload (ms)", "compute (ms)", "download (ms)", "enqueue (ms)"),
            *("CUDA graph", "copies to and from the GPU"),
        ],
        ["tensorrt-rtx-fp16", "1", "0.110", "0.523", "0.071", "0.094", "no", "yes"],
        ["tensorrt-rtx-fp16 (pipelined, 2 streams)", "8", "0.110", "0.523", "0.071", "0.094", "yes", "yes"],
        ["other", "1", "–", "0.523", "–", "0.094", "no", "no"],
    ]
    assert "On the GPU, by CUDA events: medians" in page.flat
    assert "gpu" not in read(render(sample())).tables


def in_flight(streams: int | None, **values: Any) -> dict[str, Any]:
    """A row of several calls in flight."""
    row = timed("engines/openvino-int8", "openvino", "int8", 1, (0.055, 0.066, 0.077, 0.088), 70123.4, 1.0)
    return row | {"mode": "pipelined", "streams": streams} | values


def test_throughput_is_told_apart_from_latency() -> None:
    run = sample()
    run["bench"]["results"] += [
        in_flight(2),
        in_flight(2, engine="engines/openvino-fp32", throughput_per_s=35061.7, speedup=0.5),
        in_flight(2, batch=8, throughput_per_s=90210.9),
        in_flight(None, engine="engines/gone", status="not run", reason="no driver", latency_ms=None, speedup=None)
        | {"throughput_per_s": None},
    ]
    page = read(render(run))
    assert page.tables["latency"] == read(render(sample())).tables["latency"]
    assert page.row("throughput", "openvino-int8 (pipelined, 2 streams)") == [
        *("openvino", "int8", "1", "2", "70,123", "1.00×", "0.055", "0.066", "0.077", "0.088", "0.176"),
    ]
    assert page.row("throughput", "gone (pipelined) not run") == ["openvino", "int8", "1", *["–"] * 8]
    assert "Throughput: 2 in flight; times are those of a call under that load; speed-up by images/s over" in page.flat
    assert "Latency of one call; IQR over the median; speed-up by median over PyTorch eager" in page.flat
    assert ["throughput of gone (pipelined) at batch 1", "no driver"] in page.tables["absent"]
    labels = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    latencies = [label for label in labels if label.startswith(("Latency", "Median", "Images"))]
    assert len(latencies) == 4
    assert not any("pipelined" in label for label in latencies)
    (throughput,) = [label for label in labels if label.startswith("Throughput")]
    assert "openvino-int8 (pipelined, 2 streams) 70,123 at 1, 90,211 at 8" in throughput


def test_the_state_of_the_machine_is_shown_where_it_is_known() -> None:
    run = sample()
    run["machine"] |= {"clocks": {"governor": None, "turbo": None, "max_mhz": None}, "board": {"power_mode": None}}
    run["bench"]["machine"] |= {
        "clocks": {"governor": "powersave", "min_mhz": 800, "max_mhz": 3600, "fastest_mhz": 3399.6, "turbo": False}
        | {"quota_cores": 1.5},
        "board": {"power_mode": "MAXN", "gpu_clocks": []},
    }
    page = read(render(run))
    clocks = page.row("bench-machine", "CPU clocks")
    assert clocks == ["3400 MHz, up to 3600 MHz, governor powersave, turbo off"]
    assert page.row("bench-machine", "container's CPU quota") == ["1.5 cores"]
    assert page.row("bench-machine", "power mode") == ["MAXN"]
    known = {row[0] for row in page.tables["machine"]}
    assert not known & {"CPU clocks", "container's CPU quota", "power mode"}
    assert known == {row[0] for row in read(render(sample())).tables["machine"]}


def test_gpus_boards_and_what_happened_are_shown_where_they_are_known() -> None:
    run = sample()
    gpu = {"name": "NVIDIA X", "clock_mhz": 1410.0, "max_clock_mhz": 1980.0, "temperature_c": 61.2, "power_w": 70.4}
    run["bench"]["machine"] |= {
        "gpu_states": [gpu | {"power_limit_w": None, "throttled": ["heat (hardware)"], "driver": "580"}],
        "board": {
            "gpu_clocks": [{"name": "ga10b", "mhz": 918.0, "min_mhz": 306.0, "max_mhz": None}],
            "temperatures_c": {"cpu-thermal": 48.25, "gpu-thermal": -1.0},
            "power_w": {"VDD_IN": 7.24},
        },
    }
    seen = {"name": "NVIDIA X", "clock_mhz": [1200.0, 1410.0], "max_temperature_c": 71.0, "max_power_w": None}
    run["bench"]["conditions"] = {
        "seconds": 61.6,
        "steal": 0.0123,
        "others": None,
        "throttles": 0,
        "quota_stops": 1,
        "cpu_power_w": 9.87,
        "cpu_mhz": [2596.0, 2596.0],
        "max_temperatures_c": {},
        "max_power_w": {"VDD_IN": 8.0},
        "gpus": [seen | {"throttled": []}],
    }
    page = read(render(run))
    assert page.row("bench-machine", "GPU now") == [
        "NVIDIA X: 1410 of 1980 MHz, 61 °C, 70 W, slowed down by heat (hardware)"
    ]
    assert page.row("bench-machine", "GPU clock") == ["ga10b: 918 MHz"]
    assert page.row("bench-machine", "temperatures") == ["cpu-thermal 48.2 °C, gpu-thermal -1.0 °C"]
    assert page.row("bench-machine", "power drawn") == ["VDD_IN 7.2 W"]
    assert page.tables["conditions"][1:] == [
        ["watched for", "62 s"],
        ["CPU time given to other machines", "1.2 %"],
        ["CPU clock", "2596 MHz"],
        ["CPU power", "9.9 W on average"],
        ["slowed down by heat or power", "never"],
        ["stopped by the container's quota", "1 time"],
        ["most power drawn", "VDD_IN 8.0 W"],
        ["GPU", "NVIDIA X: 1200 to 1410 MHz, up to 71 °C"],
    ]
    assert "conditions" not in read(render(sample())).tables


def test_the_distribution_of_calls_is_drawn_as_it_was_recorded() -> None:
    """Of 40 equal parts of the calls, 20 between 1 and 1.1 ms, 16 up to 1.2 ms, 4 far beyond."""
    run = sample()
    half, slower = [1 + 0.005 * i for i in range(21)], [1.1 + 0.1 * i / 16 for i in range(1, 17)]
    run["bench"]["results"][1] |= {"quantiles_ms": [*half, *slower, 5, 6, 7, 8]}
    page = read(render(run))
    labels = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    (spread,) = [label for label in labels if label.startswith("How calls spread at batch 1")]
    # The median is 1.1; quantiles 10 and 30 of 40 are 1.05 and 1.1625.
    assert spread.endswith("openvino-int8 half within 10.2 %")
    shares = [value / 1.1 for value in run["bench"]["results"][1]["quantiles_ms"]]
    counts = histogram(shares, 1 / 1.1, 2.0)
    assert sum(counts) == pytest.approx((36 + (2.2 - 1.2) / (5 - 1.2)) / 40)
    assert counts[0] == pytest.approx(20 / 40 * (2.0 - 1 / 1.1) / len(counts) / (0.1 / 1.1))


def test_throughput_alone_has_no_latency() -> None:
    run = sample()
    run["bench"]["results"] = [in_flight(2), in_flight(4, engine="engines/openvino-fp32")]
    page = read(render(run))
    assert "latency" not in page.tables
    assert len(page.tables["throughput"]) == 3
    assert "Throughput: several in flight" in page.flat


def test_provenance_names_parents_that_the_run_holds(page: Page) -> None:
    assert page.row("files", "training/model.safetensors") == ["79.3 kB", "abababababab", "–"]
    assert page.row("files", "graphs/fp32.onnx") == [
        *("80.9 kB", "cdcdcdcdcdcd", "training/model.safetensors, 0123456789ab")
    ]
    assert page.titles["files/2/sha256"] == FP32
    assert page.titles["files/2/made from"] == f"{CHECKPOINT}, {FOREIGN}"


def test_what_was_not_run(page: Page) -> None:
    assert page.tables["absent"][1:] == [
        ["parity of openvino-fp32", "it computes in BF16"],
        ["engine tensorrt-rtx-fp16", "built, not run: no GPU"],
        ["parity of tensorrt-rtx-fp16", "by simulation: its graph, in runtime 7.8.9"],
        ["latency of tensorrt-rtx-fp16 at batch 1, 8", "no NVIDIA driver"],
    ]


def test_plots_write_their_values_out(page: Page) -> None:
    for pair in (
        ("Conv", "20 → 6"),
        ("Add", "12 → 0"),
        ("int8-cpu (graph)", "38.1 kB"),
        ("tensorrt-rtx-fp16", "2.5 MB"),
        ("tensorrt-rtx-fp16 (simulation)", "99.17 → 99.05 %"),
        ("PyTorch eager", "0.815 ms"),
        ("openvino-int8", "0.099 ms"),
        ("Conv_0", "46.0 dB"),
    ):
        assert pair in zip(page.svg_texts, page.svg_texts[1:], strict=False)
    labels = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    # accuracy, drop, layers, operators, a block twice, sizes, sensitivity, latency at two batch sizes, and over both,
    # throughput
    assert len(labels) == 12
    assert "openvino-int8 0.021, 0.032, 0.062 ms" in labels[8]
    assert "openvino-int8 0.021 at 1, 0.099 at 8" in labels[10]
    assert "openvino-int8 45,123 at 1, 80,808 at 8" in labels[11]


def test_a_failed_proof_is_a_failed_run_whatever_the_record_says() -> None:
    run = sample()
    run["engines"][1]["verify"] |= {"passed": False, "failures": ["agreement 90.0000% is under 97.0000%"]}
    page = read(render(run))
    assert "FAILED 1 engine of 3 failed: openvino-int8." in page.flat
    assert page.row("engines", "openvino-int8")[-1] == "failed agreement 90.0000% is under 97.0000%"


def test_a_failed_build_has_its_reason_and_no_figures() -> None:
    run = sample()
    run["engines"][0] |= {
        "status": "failed",
        "reason": "the builder gave up",
        "size_bytes": None,
        "seconds": None,
        "verify": None,
    }
    page = read(render(run))
    row = page.row("engines", "openvino-fp32")
    assert row == ["openvino", "fp32", *["–"] * 8, "failed the builder gave up"]
    assert "FAILED" in page.text


def test_equal_and_infinite_outputs() -> None:
    run = sample()
    run["engines"] = engines()[:2]
    run["engines"][0]["verify"] = proof(0.9917, 0.0, 0.0, 0.0) | {"sqnr_db": None}
    run["engines"][1]["verify"] = proof(0.1, 89.17, 0.0, 0.0) | {
        "passed": False,
        "failures": ["the candidate's outputs hold NaN"],
        "max_abs_error": float("nan"),
        "sqnr_db": None,
    }
    page = read(render(run))
    assert page.row("engines", "openvino-fp32")[-3:] == ["0", "equal", "passed it computes in BF16"]
    assert page.row("engines", "openvino-int8")[-3:-1] == ["not finite", "–"]


def test_a_run_that_stopped_early_says_what_is_missing() -> None:
    run: dict[str, Any] = sample() | {"graphs": [], "engines": [], "bench": None, "files": [], "calibration": None}
    run |= {"unfolded": None, "stages": None, "layers": None, "block": None}
    run["export"] |= {"check": None, "fold": None}
    page = read(render(run))
    assert page.tables["absent"][1:] == [
        ["check of the exported graph", "it was left out"],
        ["fold", "it was left out: the graphs are the raw trace"],
        ["engines", "none was built"],
        ["comparison of every stage and layer with PyTorch", "it was left out"],
        ["latency", "it was not measured"],
    ]
    assert sorted(page.tables) == ["absent", "machine", "model"]
    assert "No engine was run here." in page.text


def test_images_without_labels() -> None:
    run = sample()
    for engine in run["engines"]:
        engine["verify"] |= {"top1_drop": None, "drop": None}
        for side in ("reference", "candidate"):
            engine["verify"][side] |= {"top1": None, "top5": None}
    page = read(render(run))
    assert page.row("engines", "openvino-int8")[4:7] == ["-", "-", "–"]
    assert "accuracy" not in page.tables
    assert "Top-1 of" not in " ".join(str(attributes) for _, attributes in page.elements)
