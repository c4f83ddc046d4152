"""Requests must have the form that a JSON Schema or an OpenAPI document describes.

documents: files and bodies into plain values. schemas: validators that nothing hostile slows down. openapi:
the operations of a document. parameters: their serialisation. plugin: what is asked of each request.
"""

from fastgate.plugins.request_validation.plugin import RequestValidation

__all__ = ["RequestValidation"]
