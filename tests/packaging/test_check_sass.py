"""The gates on machine code: what they read out of a disassembly, and what they find wrong."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("check_sass", Path(__file__).parents[2] / "scripts" / "check_sass.py")
assert _spec is not None and _spec.loader is not None
check_sass = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_sass)

HEAD = """
	//----- nvinfo : EIATTR_REGCOUNT
	.align		4
        /*0000*/ 	.byte	0x04, 0x2f
        /*0004*/ 	.word	index@({name})
        /*0008*/ 	.word	0x{registers:08x}
"""
BODY = """
	.section	.text.{name},"ax",@progbits{old}
	.align	128
        /*0000*/                   LDG.E.128 R4, [R2.64] ;
{more}
        /*0020*/                   STG.E.128 [R2.64], R4 ;
"""


def disassembly(name, registers, more="", old=""):
    return HEAD.format(name=name, registers=registers) + BODY.format(name=name, more=more, old=old)


@pytest.mark.parametrize("old", ["", '\n\t.sectioninfo\t@"SHI_REGISTERS=40"'])
def test_a_kernel_of_every_architecture_is_seen_with_its_registers(old):
    name = "_ZN8gradring11lion_kernelIfEEvv"
    (kernel,) = check_sass.parse(disassembly(name, 40, old=old), 90)
    assert kernel == check_sass.Kernel(name, 90, 40, loads=1, stores=1, local=0)


def test_kernels_of_one_disassembly_keep_their_own_numbers():
    text = HEAD.format(name="a", registers=16) + HEAD.format(name="b", registers=255)
    text += BODY.format(name="a", more="", old="") + BODY.format(name="b", more="LDL R1, [R3] ; STL [R3], R1 ;", old="")
    assert [(each.name, each.registers, each.local) for each in check_sass.parse(text, 80)] == [
        ("a", 16, 0),
        ("b", 255, 2),
    ]


def test_wide_accesses_by_addresses_from_a_table_count_and_those_of_shared_memory_do_not():
    more = "LD.E.128 R4, [R2.64] ; ST.E.128 [R2.64], R4 ; LDS.128 R4, [R2] ; STS.128 [R2], R4 ; LD.E.64 R4, [R2.64] ;"
    (kernel,) = check_sass.parse(disassembly("a", 16, more), 90)
    assert (kernel.loads, kernel.stores) == (2, 2)


def test_a_kernel_that_breaks_its_rule_is_told_what_it_breaks():
    rule = check_sass.Rule("lion_kernel", 64, loads=3, stores=2)
    kernel = check_sass.Kernel("_ZN8gradring11lion_kernelIfEEvv", 90, 65, loads=2, stores=1, local=6)
    found = check_sass.faults(kernel, rule)
    assert [text.split()[0] for text in found] == ["65", "6", "2", "1"]
    assert check_sass.faults(kernel._replace(registers=64, loads=3, stores=2, local=0), rule) == []


def test_a_rule_is_found_by_the_whole_name_of_its_kernel():
    assert check_sass.rule_of("_ZN8gradring11lion_kernelIfEEvv").kernel == "lion_kernel"
    assert check_sass.rule_of("_ZN8gradring15row_norm_kernelIfEEvv").kernel == "row_norm_kernel"
    assert check_sass.rule_of("_ZN8gradring12blion_kernelIfEEvv") is check_sass.OTHERS
