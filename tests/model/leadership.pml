/*
 * The leader's own lease: who may grant is the leader that the store names. Promela, searched exhaustively by spin
 * (tests/test_model.py). What is shown here, lease.pml takes for granted.
 *
 *     leader   send a write ──────────────────────────▶ its lease is over: it grants nothing    (counted from SENDING)
 *     store     └─ performs it ──────────────────────────────▶ the session ends, another one is elected     (later)
 *
 * Time, clocks and HELD are those of lease.pml. To be elected is a write like any other.
 */

/* --- the rules ---------------------------------------------------------------------------------------------------- */

/* Who holds a lease takes off by how much its clock may be slow. */
#ifndef DRIFT_IS_TAKEN_OFF
#define DRIFT_IS_TAKEN_OFF true
#endif

/* The lease counts from the sending of the newest write that was acknowledged. */
#ifndef LEASE_COUNTS_FROM_THE_WRITE
#define LEASE_COUNTS_FROM_THE_WRITE true
#endif

/* It is no longer than the session. */
#ifndef LEASE_NO_LONGER_THAN_THE_SESSION
#define LEASE_NO_LONGER_THAN_THE_SESSION true
#endif

/* A ping proves nothing: a server that is cut off from the others answers it by itself. */
#ifndef ONLY_A_WRITE_PROVES
#define ONLY_A_WRITE_PROVES true
#endif

/* Who gives up its leadership, and closes its session so that nobody need wait, has ended its lease before. */
#ifndef WHO_RESIGNS_ENDS_ITS_LEASE
#define WHO_RESIGNS_ENDS_ITS_LEASE true
#endif

/* Nor does an answer count that comes afterwards. */
#ifndef ANSWERS_END_WITH_IT
#define ANSWERS_END_WITH_IT true
#endif

#define SESSION 4
#define DRIFT 1
#define HELD(length) ((length) - (DRIFT_IS_TAKEN_OFF -> DRIFT : 0) + DRIFT)
#define LEASE (LEASE_NO_LONGER_THAN_THE_SESSION -> HELD(SESSION) : HELD(SESSION + 1))

#define max(a, b) ((a) > (b) -> (a) : (b))
#define NOBODY 2

/* --- what there is ------------------------------------------------------------------------------------------------ */

mtype = { idle, sent, done };

byte leader = NOBODY;      /* as the store has it: an ephemeral record, gone with the session that made it */
byte session[2] = 0;       /* what is left of it, 0: none */
byte lease[2] = 0;         /* what is left of it */
mtype write[2] = idle;
byte worth[2] = 0;         /* of the write under way: the lease, if it is acknowledged */

inline down(timer) { timer = (timer > 0 -> timer - 1 : 0) }

proctype Leader(byte me) {
    do
    :: d_step { write[me] == idle -> write[me] = sent; worth[me] = LEASE }

    /* The store performs it, in a session that is opened if there is none; it refuses whom another one has preceded. */
    :: d_step { write[me] == sent && (leader == me || leader == NOBODY) ->
        session[me] = SESSION; leader = me; write[me] = done }

    /* Acknowledged, maybe after its session's end: what it is worth has ended before that. */
    :: d_step { write[me] == done ->
        lease[me] = max(lease[me], (LEASE_COUNTS_FROM_THE_WRITE -> worth[me] : LEASE));
        write[me] = idle; worth[me] = 0 }
    :: d_step { !ONLY_A_WRITE_PROVES && lease[me] > 0 -> lease[me] = LEASE }

    /* Given up, or started anew. */
    :: d_step { write[me] != idle -> write[me] = idle; worth[me] = 0 }

    :: d_step { leader == me ->
        lease[me] = (WHO_RESIGNS_ENDS_ITS_LEASE -> 0 : lease[me]);
        write[me] = (ANSWERS_END_WITH_IT -> idle : write[me]);
        worth[me] = (ANSWERS_END_WITH_IT -> 0 : worth[me]);
        session[me] = 0; leader = NOBODY }

    /* The session ends, and with it what was sent in it and is not performed. */
    :: d_step { leader == me && session[me] == 0 ->
        leader = NOBODY; write[me] = (write[me] == sent -> idle : write[me]) }
    od
}

proctype Time() {
    do
    :: d_step { down(session[0]); down(session[1]); down(lease[0]); down(lease[1]); down(worth[0]); down(worth[1]) }
    od
}

init { atomic { run Time(); run Leader(0); run Leader(1) } }

#define WITHIN(one) (lease[one] > 0)

/* --- what must hold ----------------------------------------------------------------------------------------------- */

ltl only_the_leader { [] ((WITHIN(0) -> leader == 0) && (WITHIN(1) -> leader == 1)) }

/* --- what must happen: each of these is refuted ------------------------------------------------------------------- */

ltl never_first { [] !WITHIN(0) }
ltl never_another { [] !(WITHIN(1) && write[0] == done) }
