"""From archives and folders to pixels that patches are cut from."""
