"""Collectives in lines that XLA printed for TPU topologies."""

import pytest

from dst_t5x.planning import hlo

# Lines of programs that libtpu 0.0.42 compiled, shortened.
LOOP = (
  '  %all-reduce.9 = s32[52,15]{1,0:T(8,128)S(1)} all-reduce(%fusion.3), '
  'channel_id=7, replica_groups=[1,16]<=[16], to_apply=%add, '
  'metadata={op_name="jit(train_step)/jit(step)/while/body/psum" '
  'stack_frame_id=3}'
)
GRADIENTS = (
  '  %all-reduce.1 = (f32[96]{0:T(128)}, f32[96,96]{1,0:T(8,128)}, '
  'bf16[2,3]{1,0}) all-reduce(%a, %b, %c), channel_id=1, '
  'metadata={op_name="jit(train_step)/transpose/dot_general"}'
)
ASYNC = (
  '  %all-gather-start = (f32[4,8]{1,0}, f32[16,8]{1,0}, u32[], u32[]) '
  'all-gather-start(%p), channel_id=2, dimensions={0}\n'
  '  %all-gather-done = f32[16,8]{1,0} all-gather-done(%all-gather-start)'
)
NONE = '  %fusion = f32[8]{0} fusion(%all-reduce.1), kind=kLoop, calls=%f'


def test_loop_and_size():
  (found,) = hlo.collectives(LOOP)
  assert found == hlo.Collective(
    'all-reduce', 52 * 15 * 4, True, ('s32[52,15]',)
  )


def test_several_results():
  (found,) = hlo.collectives(GRADIENTS)
  assert found.bytes == 4 * 96 + 4 * 96 * 96 + 2 * 6
  assert not found.looped
  assert found.shapes == ('f32[96]', 'f32[96,96]', 'bf16[2,3]')


def test_asynchronous_ones_count_once_and_by_what_they_receive():
  (found,) = hlo.collectives(ASYNC)
  assert (found.kind, found.bytes) == ('all-gather', 4 * 16 * 8)


def test_users_of_a_collective_are_none():
  assert hlo.collectives(NONE) == []
  assert len(hlo.collectives('\n'.join((LOOP, NONE, GRADIENTS, ASYNC)))) == 3


@pytest.mark.parametrize(
  ('dtype', 'bytes_'),
  [('pred', 1), ('bf16', 2), ('u8', 1), ('f8e4m3fn', 1), ('s4', 1), ('c64', 8)],
)
def test_dtypes(dtype, bytes_):
  line = f'  %x = {dtype}[2]{{0}} all-to-all(%y), dimensions={{0}}'
  (found,) = hlo.collectives(line)
  assert found.bytes == (1 if dtype == 's4' else 2 * bytes_)
