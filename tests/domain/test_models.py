import pytest

from pipeline.domain.errors import UsageError
from pipeline.domain.models import EngineKind, ModelSpec, Recipe, spec_of


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
            "encoder:/m?backend=torch&matryoshka=true&x=0.5",
            EngineKind.ENCODER,
            "/m",
            {"backend": "torch", "matryoshka": True, "x": 0.5},
        ),
    ],
)
def test_a_setting_names_engine_source_and_options(
    written: str, engine: EngineKind, source: str, options: dict[str, object]
) -> None:
    assert spec_of("m", written) == ModelSpec(name="m", source=source, engine=engine, options=options)


def test_the_recipe_of_a_setting_is_the_variants() -> None:
    spec = spec_of("m", "encoder:/m?recipe=float32&backend=torch")

    assert (spec.recipe, spec.options) == (Recipe.FLOAT32, {"backend": "torch"})
    with pytest.raises(UsageError, match="m: the encoder engine has no recipe 'int3'"):
        spec_of("m", "encoder:/m?recipe=int3")
