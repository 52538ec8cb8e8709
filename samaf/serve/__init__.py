"""The HTTP service: a library behind an API and a page; needs the extra `serve`.

The command's process starts workers, which answer, and one writer, which changes the index; see `workers` for the
processes, `app` for the routes, `access` for who may do what, and `bounds` for how much. It is thin: what is searched
and added goes through :class:`samaf.library.Library`.
"""
