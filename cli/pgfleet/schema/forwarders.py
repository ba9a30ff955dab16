"""Edge functions that pass calls on, for hosted projects, whose own address runs Deno."""

from __future__ import annotations

from pathlib import Path

from pgfleet.errors import InvalidInput

# What is called from outside at the address of the project.
FUNCTIONS = ("auto-sync-cron", "integration-webhook")

_SOURCE = """\
// Passes calls of {name} on to the functions of pgfleet; written by: pgfleet functions forwarders
// Its address: supabase secrets set PGFLEET_FUNCTIONS_URL=https://functions.example.com/functions/v1
Deno.serve(async (request: Request): Promise<Response> => {{
  const base = Deno.env.get("PGFLEET_FUNCTIONS_URL");
  if (!base) {{
    return Response.json({{ message: "PGFLEET_FUNCTIONS_URL is not set" }}, {{ status: 503 }});
  }}
  const called = new URL(request.url);
  const path = called.pathname.replace(/^\\/functions\\/v1(?=\\/)/, "");
  const headers = new Headers(request.headers);
  headers.delete("host");
  const hasBody = request.method !== "GET" && request.method !== "HEAD";
  const answer = await fetch(base.replace(/\\/$/, "") + path + called.search, {{
    method: request.method,
    headers,
    body: hasBody ? await request.arrayBuffer() : undefined,
    redirect: "manual",
  }});
  // The body is unpacked by now, and has another length.
  const told = new Headers(answer.headers);
  told.delete("content-encoding");
  told.delete("content-length");
  return new Response(answer.body, {{ status: answer.status, headers: told }});
}});
"""


def write(folder: Path) -> list[Path]:
    """Write one edge function for each, and name the files."""
    written = []
    for name in FUNCTIONS:
        path = folder / name / "index.ts"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_SOURCE.format(name=name))
        except OSError as error:
            raise InvalidInput(
                f"cannot write {path}: {error.strerror}", reason="file_unwritable"
            ) from error
        written.append(path)
    return written
