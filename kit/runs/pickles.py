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
PLAIN, EMPTY, HOLDER, MADE = "a plain value", "an empty tuple", "a list or the like", "a tensor"
NEW = {**dict.fromkeys(["NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
                        "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
                        "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"], PLAIN),
       "EMPTY_TUPLE": EMPTY, "EMPTY_LIST": HOLDER, "EMPTY_DICT": HOLDER}
# How many items an instruction takes; others take all since the last mark.
TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BINPERSID": 1, "REDUCE": 2, "BUILD": 1}


def check_pickle(file):
    """Read one pickle of an open file by its instructions alone. Raises ValueError for one with anything else in it."""
    stack, below, memo = [], [], {}  # what stands since the last mark, and the stacks below that

    def taken():
        """The items that the instruction takes from the stack."""
        nonlocal stack
        if name not in TAKES:
            items, stack = stack, below.pop()
            return items
        begin = len(stack) - TAKES[name]
        if begin < 0:
            raise ValueError("its pickle takes more than there is")
        items = stack[begin:]
        del stack[begin:]
        return items

    def require(holds, what):
        if not holds:
            raise ValueError(f"Unsupported: {what}")

    for instruction, value, _ in pickletools.genops(file):
        name = instruction.name
        if name in NEW:
            stack.append(NEW[name])
        elif name == "MARK":
            below.append(stack)
            stack = []
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
            taken()
            stack.append(HOLDER)
        elif name in ("APPEND", "APPENDS"):
            taken()
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            require(all(key == PLAIN for key in taken()[::2]), "a key that is no plain value")
            stack += [HOLDER] if name == "DICT" else []
        elif name == "BINPERSID":  # a storage, by its number
            taken()
            stack.append(MADE)
        elif name == "REDUCE":
            maker, arguments = taken()
            require(maker in MAKERS or maker == ORDERED and arguments == EMPTY, f"a call of {maker}")
            stack.append(f"{ORDERED}, made" if maker == ORDERED else MADE)
        elif name == "BUILD":  # the attributes of a state dict
            taken()
            require(stack[-1] == f"{ORDERED}, made", "an object with attributes")
        else:
            require(name in ("PROTO", "FRAME", "STOP"), name)
