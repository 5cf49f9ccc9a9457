"""What would train on something else than it says: found and named before it does."""

from __future__ import annotations

from typing import Any


def blocks(prompt: Any) -> list[dict[str, Any]]:
    """The content blocks of a prompt's messages, none where the prompt or its messages are plain text.

    Example:

    ```python
    >>> blocks([{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "image"}]}])
    [{'type': 'image'}]

    ```
    """
    contents = [message.get("content") for message in prompt] if isinstance(prompt, list) else []
    return [block for content in contents if isinstance(content, list) for block in content]
