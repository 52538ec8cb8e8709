"""The HTTP service: a library behind an API and a page; needs the extra `serve`.

The command's process starts workers, which answer, and one writer, which changes the index: see `workers` and `jobs`.
`app` has the routes, `service` what they do, `access` says who may do what, and `bounds` how much. It is thin: what is
searched and added goes through :class:`samaf.library.Library`.
"""
