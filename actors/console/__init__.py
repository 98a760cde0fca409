"""The actor that keeps the console running beside a broker: `planaria serve --console`.

process.py      starts `planaria console` as a process of its own, and dies with it
"""
