// Write the byte code of Python files next to them, by Pyodide's Python.
//   node stacks/byte_code.mjs FOLDER VERSION PATH…
// Byte code depends on the minor version of Python, not on the machine, so that of WebAssembly runs anywhere.

import { loadPyodide } from "pyodide";

const [folder, version, ...paths] = process.argv.slice(2);
const python = await loadPyodide();
python.mountNodeFS("/bundle", folder);
python.globals.set("wanted", version);
python.globals.set("paths", python.toPy(paths));
const failure = python.runPython(`
import os, py_compile, sys

def compile_all():
    found = "%d.%d" % sys.version_info[:2]
    if found != wanted:
        return f"pyodide has Python {found}, and the functions have {wanted}. Pin another pyodide in package.json"
    os.chdir("/bundle")
    for path in paths:
        try:
            py_compile.compile(path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        except (OSError, py_compile.PyCompileError) as error:
            return f"{path} cannot be compiled: {str(error).strip().splitlines()[-1]}"
    return ""

compile_all()
`);
if (failure) {
  console.error(failure);
  process.exit(1);
}
