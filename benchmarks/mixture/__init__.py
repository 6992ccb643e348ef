"""Which losses and anchors find lost modes."""
