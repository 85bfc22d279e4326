"""The page: files that come with the package, nothing from elsewhere."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-frame-options": "DENY", "permissions-policy": "interest-cohort=()"}


class Files(StaticFiles):
    """Static files under a policy that lets them load nothing from elsewhere."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def mount(app: FastAPI) -> None:
    """The page at / and its files below /page/, if this installation has them."""
    index = FOLDER / "index.html"
    if not index.is_file():
        return

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return FileResponse(index, headers=HEADERS)

    app.mount("/page", Files(directory=FOLDER), name="page")
