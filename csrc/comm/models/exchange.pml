/* The exchange of pieces between two ranks (exchange in all_reduce.cc) for spin(1): every interleaving of OPERATIONS
 * operations of PIECES pieces each. Two halves of staging memory are shared: in turn t rank q has its piece in half
 * (q + t) mod 2, reads the other one, and puts its next piece there. Operations differ: some have a round before, without
 * staging memory, as of a barrier; in some, a rank has staged its piece in vain, as the ranks did not all stage, and does
 * so again. Checked: what a rank reads is the other rank's piece of that turn, and no rank waits for ever.
 *
 * holds: -DOPERATIONS=4 -DPIECES=1
 * holds: -DOPERATIONS=3 -DPIECES=3
 * finds: -DOPERATIONS=3 -DPIECES=3
 */
#ifndef OPERATIONS
#define OPERATIONS 3
#endif
#ifndef PIECES
#define PIECES 3
#endif
#define CELL(rank, round) ((rank) * 2 + ((round) & 1))
#ifdef BUG_SAME_HALVES
#define HALF(rank, turn) (rank)
#else
#define HALF(rank, turn) (((rank) + (turn)) & 1)
#endif
#define PIECE(rank, number) ((number) * 2 + (rank) + 1)
#define IN_VAIN 255

byte word[4];
byte half[2];

inline meet() {
  round++;
  word[CELL(me, round)] = round;
#ifdef BUG_NO_WAIT
  skip
#else
  word[CELL(other, round)] == round
#endif
}

active [2] proctype rank() {
  byte me = _pid, other = 1 - _pid;
  byte round, turn, operation, piece;

  do
  :: operation == OPERATIONS -> break
  :: else ->
    if
    :: operation % 3 == 1 -> meet()
    :: operation % 3 == 2 -> half[HALF(me, turn)] = IN_VAIN; meet()
    :: else
    fi;
    half[HALF(me, turn)] = PIECE(me, turn);
    piece = 0;
    do
    :: piece == PIECES -> break
    :: else ->
      meet();
      assert(half[HALF(other, turn)] == PIECE(other, turn));
      if
      :: piece + 1 < PIECES -> half[HALF(other, turn)] = PIECE(me, turn + 1)
      :: else
      fi;
#ifndef BUG_NO_TURN
      turn++;
#else
      if
      :: piece + 1 < PIECES -> turn++
      :: else
      fi;
#endif
      piece++
    od;
    operation++
  od
}
