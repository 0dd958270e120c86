"""Looks for secrets in all that a deployment holds: files, and what is in its frames."""

from sealtape.indexer.reading import Recording
from sealtape.schemas.errors import KeyUnavailable

OWN = ("keys", "secrets")
"""Folders where secrets belong."""


class Secrets:
    """Bytes that must be nowhere: whole secrets, and the parts that tokens are made of."""

    def __init__(self, *texts):
        self.parts = set()
        for text in texts:
            self.parts.add(text.encode())
            if text.count(".") == 2:
                self.parts |= {part.encode() for part in text.split(".")[1:]}
        assert all(len(part) >= 8 for part in self.parts)

    def found(self, data):
        return any(part in data for part in self.parts)

    def in_files(self, folder):
        """Files below a folder that hold a secret."""
        return [
            str(path.relative_to(folder))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and path.relative_to(folder).parts[0] not in OWN
            and self.found(path.read_bytes())
        ]

    async def in_frames(self, lab):
        """Frames that hold a secret once they are opened; how many were looked into, and which."""
        looked, hits = 0, []
        for indexer in (False, True):
            async with lab.stores(indexer=indexer) as stores:
                names = [row.session async for row in stores.ledger.sessions()]
                for name in names:
                    recording = Recording(
                        name, stores.ledger, stores.vault, stores.bus, stores.keys
                    )
                    async for frame in recording.frames():
                        try:
                            body = await stores.keys.open(frame)
                        except KeyUnavailable:
                            continue
                        looked += 1
                        if self.found(body) or self.found(frame.payload):
                            hits.append((name.hex(), frame.epoch, frame.seq, frame.kind))
        return looked, hits
