"""The console: pages in a browser that show a broker and operate it. A process of its own, and a client of the broker.

Holds no state but the sessions of its users: everything on a page comes from the broker's answers, and charts are drawn
from the answers that their page has received. Served by `planaria console`; needs the extra `console` (Starlette,
uvicorn, Jinja2).
"""
