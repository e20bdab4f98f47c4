"""Pickles of checkpoints, looked through before anything is made of them: weights and plain values, nothing else.

PyTorch's `weights_only` runs no code of a file, but what it allows can still ask for any amount of memory or time:
arrays of a size that is just named, keys whose hash takes 2⁴⁵ steps, tensors with attributes of their own. Weights need
little of it, and only that is let through.
"""

import pickletools

MAKERS = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_parameter"}
ORDERED = "collections OrderedDict"
STORAGES = {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char",
                                                "Byte", "Bool")}
# Kinds of what stands on the stack of the pickle's machine; beside them the names above.
PLAIN, EMPTY, HOLDER, MADE, MARK = "a plain value", "an empty tuple", "a list or the like", "a tensor", "a mark"
NEW = {**dict.fromkeys(["NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
                        "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
                        "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"], PLAIN),
       "EMPTY_TUPLE": EMPTY, "EMPTY_LIST": HOLDER, "EMPTY_DICT": HOLDER, "MARK": MARK}


def check_pickle(file):
    """Read one pickle of an open file by its instructions alone. Raises ValueError for one with anything else in it."""
    stack, memo = [], {}

    def taken(count=None):
        """The last items of the stack, so many, or all behind the last mark."""
        begin = len(stack) - count if count else len(stack) - 1 - stack[::-1].index(MARK)
        items = stack[begin:] if count else stack[begin + 1 :]
        del stack[begin:]
        return items

    def require(holds, what):
        if not holds:
            raise ValueError(f"Unsupported: {what}")

    for instruction, value, _ in pickletools.genops(file):
        name = instruction.name
        if name in NEW:
            stack.append(NEW[name])
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(value)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(value)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "GLOBAL":
            require(value in MAKERS | STORAGES | {ORDERED}, value)
            stack.append(value)
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST"):
            taken(int(name[5:] or 0) if name != "LIST" else None)
            stack.append(HOLDER)
        elif name in ("APPEND", "APPENDS"):
            taken(1 if name == "APPEND" else None)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            keys = taken(2 if name == "SETITEM" else None)[::2]
            require(all(key == PLAIN for key in keys), "a key that is no plain value")
            stack += [HOLDER] if name == "DICT" else []
        elif name == "BINPERSID":  # a storage, by its number
            taken(1)
            stack.append(MADE)
        elif name == "REDUCE":
            maker, arguments = taken(2)
            require(maker in MAKERS or maker == ORDERED and arguments == EMPTY, f"a call of {maker}")
            stack.append(f"{ORDERED}, made" if maker == ORDERED else MADE)
        elif name == "BUILD":  # the attributes of a state dict
            taken(1)
            require(stack[-1] == f"{ORDERED}, made", "an object with attributes")
        else:
            require(name in ("PROTO", "FRAME", "STOP"), name)
