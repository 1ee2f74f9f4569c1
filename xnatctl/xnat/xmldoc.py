"""Item XML, read safely and written back with every namespace it came with. Pure.

ElementTree renames prefixes when it writes, and forgets those that only occur inside
`xsi:type="fs:…"` values; a server then meets an undeclared prefix. So the declarations are
collected while reading and put back on the root.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from xnatctl.errors import BadReply

Element = ElementTree.Element

NS_XNAT = "{http://nrg.wustl.edu/xnat}"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
XSI_TYPE = f"{{{XSI}}}type"
MAX_XML = 64 * 1024 * 1024


def parse_xml(body: bytes, where: str) -> Element:
    """The root of a document. A DOCTYPE is refused: no reply of XNAT has one, and entities can be
    bombs.
    """
    return _parse(body, where)[0]


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree, collects the namespaces, and stops at a DOCTYPE wherever it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces: dict[str, str] = {}

    def start_ns(self, prefix: str, uri: str) -> None:
        self.namespaces.setdefault(prefix, uri)

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise _Doctype


class _Doctype(Exception):
    pass


def _parse(body: bytes, where: str) -> tuple[Element, dict[str, str]]:
    if len(body) > MAX_XML:
        raise BadReply(f"{where} answered {len(body)} bytes of XML, more than any item has")
    builder = _Builder()
    parser = ElementTree.XMLParser(target=builder)
    try:
        parser.feed(body)
        root = parser.close()
    except _Doctype:
        raise BadReply(f"{where} answered XML with a DOCTYPE, which is refused") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        # The latter two are for encodings that nobody knows.
        raise BadReply(f"{where} answered XML that cannot be read", why=str(error)) from error
    return root, builder.namespaces


class Document:
    """A document that can be changed and written again."""

    def __init__(self, body: bytes, where: str = "the document") -> None:
        self.root, self.namespaces = _parse(body, where)

    def to_bytes(self) -> bytes:
        """The document as UTF-8 with the prefixes that it came with, all declared on the root."""
        for prefix, uri in self.namespaces.items():
            if prefix and not re.fullmatch(r"ns\d+|xml", prefix):
                ElementTree.register_namespace(prefix, uri)
        text = ElementTree.tostring(self.root, encoding="unicode")
        head, close, rest = text.partition(">")
        slash = "/" if head.endswith("/") else ""
        head = head.removesuffix("/")
        used = set(re.findall(r'type="([\w.-]+):', text))
        for prefix, uri in sorted(self.namespaces.items()):
            if prefix in used and f"xmlns:{prefix}=" not in head:
                head += f" xmlns:{prefix}={quoteattr(uri)}"
        return f"{head}{slash}{close}{rest}".encode()

    def drop(self, *paths: str) -> None:
        """Remove every element at the given paths (`scans/scan/file`, in XNAT's namespace)."""
        for path in paths:
            parents, _, name = path.rpartition("/")
            base = "/".join(NS_XNAT + part for part in parents.split("/")) if parents else "."
            for parent in self.root.findall(base):
                for child in parent.findall(NS_XNAT + name):
                    parent.remove(child)

    def drop_attributes(self, *names: str) -> None:
        for name in names:
            self.root.attrib.pop(name, None)

    def set_child(self, name: str, text: str) -> None:
        """Change the text of a direct child that is there; nothing is added out of order."""
        child = self.root.find(NS_XNAT + name)
        if child is not None:
            child.text = text


def canonical_element(node: Element) -> bytes:
    """An element in a form in which equal content is equal bytes, without comments and spacing.

    Prefixes are rewritten, since those that ElementTree picks depend on what it wrote before.
    """
    text = ElementTree.tostring(node, encoding="unicode")
    return ElementTree.canonicalize(text, strip_text=True, rewrite_prefixes=True).encode()
