"""``python -m consolve.learned.weights``: write ``shipped.json``, the SHA-256 of every shipped file."""

import hashlib
import json

from consolve.base.files import whole_file
from consolve.learned.weights.file import folder

found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder().glob("*.h5"))}
with whole_file(folder() / "shipped.json") as part:
    part.write_text(json.dumps(found, indent=1) + "\n")
