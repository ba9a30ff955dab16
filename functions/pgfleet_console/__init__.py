"""The console: a web page on the fleet, for people who look and act.

It has no SQL of its own. It reads the views and calls the functions that everybody can call, as
the person who looks, so row security decides what there is to see and what is refused.

- `app` puts it together; `settings` says what it is told.
- `doors` let people in: by a one-time link on a laptop, by the project's tokens as a service.
- `page` is what a page is made of, `table` names all of them. To add one, read `page`.
- `live` shows changes on open pages; the database says when to look.
"""
