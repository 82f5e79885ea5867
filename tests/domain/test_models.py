import pytest

from pipeline.domain.models import EngineKind, ModelSpec, spec_of


@pytest.mark.parametrize(
    ("written", "engine", "source", "options"),
    [
        ("/models/m", EngineKind.AUTO, "/models/m", {}),
        ("owner/name", EngineKind.AUTO, "owner/name", {}),
        ("wheel:package/model", EngineKind.AUTO, "wheel:package/model", {}),
        ("/models/what?", EngineKind.AUTO, "/models/what?", {}),
        ("encoder:wheel:package/model", EngineKind.ENCODER, "wheel:package/model", {}),
        ("openvino:/m?slots=4", EngineKind.OPENVINO, "/m", {"slots": 4}),
        (
            "encoder:/m?precision=float32&matryoshka=true&x=0.5",
            EngineKind.ENCODER,
            "/m",
            {"precision": "float32", "matryoshka": True, "x": 0.5},
        ),
    ],
)
def test_a_setting_names_engine_source_and_options(
    written: str, engine: EngineKind, source: str, options: dict[str, object]
) -> None:
    assert spec_of("m", written) == ModelSpec(name="m", source=source, engine=engine, options=options)
