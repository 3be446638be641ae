"""A service: photographs come in by HTTP, and decisions go out; needs the extra `serve`."""

from omiad.serving.command import serve as serve
