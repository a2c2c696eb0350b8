"""The type of what `json.loads` returns."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
else:  # the run-time checker knows no recursive types: it looks at the outermost value alone
    Json = dict | list | str | int | float | bool | None

JsonObject: TypeAlias = dict[str, Json]
