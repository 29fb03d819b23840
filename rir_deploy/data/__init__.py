"""Images: where they come from, how they are preprocessed, which are chosen. Needs numpy and pillow only."""
