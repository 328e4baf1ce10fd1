"""The public tricks for getting out of a Python sandbox, each as a workflow, and what a safe interpreter makes of it.

The value is the name of the exception that has to end the workflow (or to refuse its start), or `Gives` with the harmless value that it returns. Every
workflow is started without the check at submit, as somebody would who tries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gives:
    """The workflow returns this, which tells nothing of the machine."""

    value: Any


TRICKS: dict[str, tuple[str, Any]] = {
    # Walks along the type hierarchy
    "subclasses of object": ("().__class__.__base__.__subclasses__()", "AttributeError"),
    "subclasses by mro": ("''.__class__.__mro__[-1].__subclasses__()", "AttributeError"),
    "bases": ("[].__class__.__bases__[0]", "AttributeError"),
    "type of a type": ("type(type(1)).__subclasses__(type)", "AttributeError"),
    "object": ("object.__subclasses__()", "AttributeError"),
    "init globals": ("(lambda: 0).__init__.__globals__", "AttributeError"),
    "globals of a function": ("def f():\n    pass\nf.__globals__", "AttributeError"),
    "closure": ("def f(x):\n    return lambda: x\nf(1).__closure__", "AttributeError"),
    "code object": ("def f():\n    pass\nf.__code__", "AttributeError"),
    "replaced code object": ("f = lambda: 1\nf.__code__ = (lambda: 2).__code__", "AttributeError"),
    "defaults": ("f = lambda a=1: a\nf.__defaults__", "AttributeError"),
    "code type": ("type((lambda: 0).__code__)", "AttributeError"),
    "function type": ("type(lambda: 0)(1, {})", "TypeError"),
    "self of a builtin": ("print.__self__", "AttributeError"),
    "module of a builtin": ("print.__self__.__dict__", "AttributeError"),
    "method self": ("[].append.__self__", "AttributeError"),
    "warnings catcher": (
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'catch_warnings'][0]()._module",
        "AttributeError",
    ),
    "three argument type": ("type('A', (), {})", "TypeError"),
    "class of a class": ("class A:\n    pass\nA.__class__.__mro__", "AttributeError"),
    "dictionary of an instance": ("class A:\n    pass\nA().__dict__", "AttributeError"),
    "changed class of an instance": ("class A:\n    pass\nx = A()\nx.__class__ = dict\nrepr(x)[:2]", Gives("<A")),
    "reduce": ("().__reduce__()", "AttributeError"),
    "reduce_ex": ("''.__reduce_ex__(4)", "AttributeError"),
    # Format strings
    "format attribute": ("'{0.__class__}'.format(())", "AttributeError"),
    "format walk": ("'{0.__class__.__base__}'.format(1)", "AttributeError"),
    "format index": ("'{0[__class__]}'.format({'a': 1})", "KeyError"),
    "format of a function": ("'{0.__globals__}'.format(identity)", "AttributeError"),
    "format_map": ("'{x.__class__.__mro__}'.format_map({'x': ()})", "AttributeError"),
    "f-string": ("f'{().__class__.__base__}'", "AttributeError"),
    "f-string conversion": ("f'{print!r}'", Gives("<built-in function print>")),
    "f-string width bomb": ("f'{1:1000000000000}'", "MemoryError"),
    "percent width bomb": ("'%1000000000000d' % 1", "MemoryError"),
    "nested format spec": ("'{:{}}'.format(1, '__class__')", "ValueError"),
    # Frames, coroutines, exceptions
    "generator frame": ("(x for x in [1]).gi_frame", "AttributeError"),
    "generator code": ("(x for x in [1]).gi_code", "AttributeError"),
    "coroutine frame": ("async def f():\n    pass\nf().cr_frame", "AttributeError"),
    "coroutine await": ("async def f():\n    pass\nf().cr_await", "AttributeError"),
    "coroutine sent": ("async def f():\n    pass\nf().send(None)", "AttributeError"),
    "call as a coroutine": ("identity(1).cr_frame", "AttributeError"),
    "traceback": ("try:\n    1 / 0\nexcept Exception as e:\n    e.__traceback__.tb_frame", "AttributeError"),
    "traceback of a host exception": (
        "try:\n    await fail('ValueError', 'x')\nexcept Exception as e:\n    e.__traceback__.tb_frame.f_globals",
        "AttributeError",
    ),
    "context": ("try:\n    1 / 0\nexcept Exception as e:\n    e.__context__.tb_frame", "AttributeError"),
    "cause": (
        "try:\n    await fail('ValueError', 'x')\nexcept Exception as e:\n    e.__cause__.args",
        "AttributeError",
    ),
    "with_traceback": ("ValueError('x').with_traceback(None)", "AttributeError"),
    "name of an attribute error": ("try:\n    identity.x\nexcept AttributeError as e:\n    e.obj", "AttributeError"),
    "frames by sys": ("import sys\nsys._getframe()", "AttributeError"),
    "exc_info": ("import sys\nsys.exc_info()", "AttributeError"),
    # What runs code
    "eval": ("eval('1 + 1')", Gives(2)),
    "eval of an import": ("eval(\"__import__('os').system('id')\")", "NameError"),
    "exec": ("x = 0\nexec('x = 1 + 1')\nx", Gives(2)),
    "exec of an import": ("exec('import subprocess')", "ModuleNotFoundError"),
    "exec with builtins": ("exec('__import__(\"os\")', {'__builtins__': {}})", "NameError"),
    "compile": ("compile('1', '', 'eval')", "NameError"),
    "open": ("open('/etc/passwd')", "PermissionError"),
    "open to write": ("open('/tmp/escaped', 'w').write('x')", "PermissionError"),
    "open a descriptor": ("open(0)", "TypeError"),
    "path": ("from pathlib import Path\nPath('/etc/passwd').read_text()", "PermissionError"),
    "path listing": ("from pathlib import Path\nlist(Path('/').iterdir())", "PermissionError"),
    "home": ("from pathlib import Path\nPath.home()", "AttributeError"),
    "breakpoint": ("breakpoint()", "NameError"),
    "input": ("input()", "NameError"),
    "help": ("help()", "NameError"),
    "exit": ("exit()", "NameError"),
    "license": ("license._Printer__setup()", "NameError"),
    "globals": ("globals()['__builtins__']", "NameError"),
    "locals": ("locals()", Gives({})),
    "vars": ("vars()", "NameError"),
    "dir": ("dir()", "NameError"),
    "memoryview": ("memoryview(b'x')", "NameError"),
    "builtins name": ("__builtins__", "InputError"),
    "loader": ("__loader__", "NameError"),
    "spec": ("__spec__", Gives(None)),
    "file": ("__file__", "InputError"),
    "import function": ("__import__('os')", "NameError"),
    "import through a host function": ("identity.__import__('os')", "AttributeError"),
    "getattr": ("getattr((), '__class__').__base__", "AttributeError"),
    "getattr with a built name": ("getattr((), '__cl' + 'ass__').__mro__", "AttributeError"),
    "setattr on a builtin": ("setattr(int, 'x', 1)", "AttributeError"),
    "attribute by map": ("list(map(lambda n: getattr((), n), ['__subclasses__']))", "AttributeError"),
    "object attribute methods": ("object.__getattribute__((), '__class__').__mro__", "AttributeError"),
    "reduce of getattr": (
        "from functools import reduce\nreduce(getattr, ['__class__', '__base__', '__subclasses__'], ())",
        "AttributeError",
    ),
    # Modules
    "sys modules": ("import sys\nsys.modules['os']", "AttributeError"),
    "os system": ("import os\nos.system('id')", "AttributeError"),
    "os environ": ("import os\nos.environ['HOME']", "RuntimeError"),
    "os getenv": ("import os\nos.getenv('HOME')", "RuntimeError"),
    "os popen": ("import os\nos.popen('id').read()", "AttributeError"),
    "os listdir": ("import os\nos.listdir('/')", "PermissionError"),
    "os path exists": ("import os.path\nos.path.exists('/etc/passwd')", "PermissionError"),
    "module of a module": ("import json\njson.decoder.scanner.sys", "AttributeError"),
    "codecs of json": ("import json\njson.codecs", "AttributeError"),
    "module dictionary": ("import json\njson.__dict__", "AttributeError"),
    "random os": ("import random\nrandom._os.system('id')", "AttributeError"),
    "json hook": ("import json\njson.loads('{\"a\":1}', object_hook=identity)", "TypeError"),
    "re callable": ("import re\nre.sub('a', eval, '1')", "TypeError"),
    "csv open": ("import csv\ncsv.open('/etc/passwd')", "AttributeError"),
    "tomllib load": ("import tomllib\ntomllib.load(open('/etc/passwd', 'rb'))", "PermissionError"),
    **{
        f"import {name}": (f"import {name}", "ModuleNotFoundError")
        for name in (
            *("subprocess", "socket", "ctypes", "pickle", "marshal", "importlib", "inspect", "gc", "builtins", "pty"),
            *("multiprocessing", "threading", "platform", "types", "code", "site", "shutil", "posix", "_io", "imp"),
            *("linecache", "traceback", "pydantic_monty", "durable_monty", "support", "tests", "sqlalchemy"),
        )
    },
    "relative import": ("from . import x", "ImportError"),
    "import of a dotted host module": ("import durable_monty.store", "ModuleNotFoundError"),
    "import of a path": ("from etc.passwd import x", "ModuleNotFoundError"),
    # Protocols
    "class with a descriptor": (
        "class D:\n    def __get__(self, o, t):\n        return 42\nclass A:\n    x = D()\nA().x == 42",
        Gives(False),
    ),
    "class with a metaclass": ("class A(metaclass=type):\n    pass", "NotImplementedError"),
    "class body with builtins": ("class A:\n    x = __builtins__", "InputError"),
    "class with init_subclass": ("class A:\n    pass\nclass B(A):\n    pass", "NotImplementedError"),
    "class of a class getitem": (
        "class A:\n    def __class_getitem__(cls, x):\n        return x\nA['id']",
        "TypeError",
    ),
    "getattr of an instance": (
        "class A:\n    def __getattr__(self, n):\n        return n\nA().__class__.__base__",
        "AttributeError",
    ),
    "decorator of a builtin": ("@exec\n@'print'.format\nclass A:\n    pass", "AttributeError"),
    "destructor": ("class A:\n    def __del__(self):\n        print('x')\nx = A()\nx = None\n1", Gives(1)),
    "equality that lies": ("class A:\n    def __eq__(self, o):\n        return True\nA() == identity", Gives(True)),
    "repr of an instance in a message": (
        "class A:\n    def __repr__(self):\n        return '<coroutine external_future(0)>'\nrepr(A())[:10]",
        Gives("<coroutine"),
    ),
    "print to a file": ("import sys\nprint('x', file=sys.stdout)", Gives(None)),
    "print to a host function": ("print('x', file=identity)", "TypeError"),
    "print to a path": ("print('x', file='/tmp/escaped')", "TypeError"),
    "attributes of sys.stdout": ("import sys\nsys.stdout.buffer", "AttributeError"),
    # Host functions as objects
    "globals of a host function": ("identity.__globals__", "AttributeError"),
    "wrapped host function": ("identity.__wrapped__", "AttributeError"),
    "module of a host function": ("identity.__module__", "AttributeError"),
    "code of a host function": ("identity.__code__", "AttributeError"),
    "call of a host function's method": ("identity.__call__(1)", "AttributeError"),
    "attribute of a host value": ("(await identity({'a': 1})).__class__.__base__", "AttributeError"),
    "attribute of a host exception": (
        "try:\n    await fail('OSError', 'x')\nexcept OSError as e:\n    e.characters_written",
        "AttributeError",
    ),
    "text that looks like a call": ("await identity('<coroutine external_future(0)>')", "RuntimeError"),
    "text that looks like another call": ("'<coroutine external_future(9999)>'", "RuntimeError"),
    "undefined host function": ("await no_such_function('id')", "NameError"),
    "dotted name of a host function": ("await support.functions.process_id()", "InputError"),
    "host function by its path": ("await eval('support.functions.exit_process')()", "NameError"),
    "operation of another workflow": ("await _signal('x')", "NameError"),
    "mark without its helper": ("_open('', [])", "NameError"),
    "keyword that the engine reads": (
        "await identity(1, _options={'executor': 'nobody', 'plugin': 'x'})",
        "ValueError",
    ),
    "keyword that is no option": ("await identity(1, _options=print)", "ValueError"),
    "inputs by name": ("_inputs", "InputError"),
    # Text tricks
    "homoglyph attribute": ("().__ｃlass__.__base__", "AttributeError"),
    "homoglyph call": ("ｅval('1 + 1')", Gives(2)),
    "homoglyph import": ("__ｉmport__('os')", "NameError"),
    "mathematical letters": ("x = 0\n𝐞𝐱𝐞𝐜('x = 2')\nx", Gives(2)),
    "bidirectional override": ("x = 1 # \u202e }{ \u2066\nx", Gives(1)),
    "encoded source cookie": ("# -*- coding: utf-7 -*-\n# +AAo-import os\n1", Gives(1)),
    "escaped names": ("getattr((), '\\x5f\\x5fclass\\x5f\\x5f').__base__", "AttributeError"),
    "line separator": ("x = 'a\u2028b'\nlen(x)", Gives(3)),
    "form feed": ("x = 1\n\x0cx", Gives(1)),
    # What would break an interpreter rather than leave it
    "huge literal": ("9" * 5000, "WorkflowCheckError"),
    "huge power": ("10 ** 10 ** 10", "MemoryError"),
    "huge shift": ("1 << 10 ** 12", "MemoryError"),
    "huge repeat": ("[0] * 10 ** 12", "MemoryError"),
    "huge text of a number": ("str(10 ** 100000)", "ValueError"),
    "huge range": ("sum(range(10 ** 5)) > 0", Gives(True)),
    "huge factorial": ("import math\nmath.factorial(10 ** 7)", "TimeoutError"),
    "deep recursion": ("def f(x):\n    return f([x])\nf(1)", "RecursionError"),
    "recursive repr": ("x = []\nx.append(x)\nrepr(x)", Gives("[[...]]")),
    "deep data": ("x = []\nfor i in range(100000):\n    x = [x]\nlen(repr(x)) < 10000", Gives(True)),
    "deep equality": ("x = y = []\nfor i in range(100000):\n    x, y = [x], [y]\nx == y", "RecursionError"),
    "catching everything": ("try:\n    raise BaseException('x')\nexcept BaseException:\n    pass\n1", Gives(1)),
    "sort that never agrees": (
        "from random import random\nlen(sorted(range(1000), key=lambda x: random()))",
        Gives(1000),
    ),
    "list that grows while it is walked": (
        "x = [1]\nfor i in x:\n    x.append([i] * 10 ** 6)\n1",
        "MemoryError or TimeoutError",
    ),
    "dictionary that changes while it is walked": (
        "d = {1: 1}\nfor k in d:\n    d[k + 1] = 1\n    if k > 5:\n        break\n1",
        "RuntimeError",
    ),
    "hash that fails": ("class A:\n    def __hash__(self):\n        return 1 / 0\n{A(): 1}", "ZeroDivisionError"),
}
