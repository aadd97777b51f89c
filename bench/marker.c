/* marker - tells callgrind where counting begins and ends; called from Python by ctypes.
 *   gcc -O2 -shared -fPIC -o marker.so marker.c
 * Outside valgrind these are no-operations. */
#include <valgrind/callgrind.h>

int under_valgrind(void) { return RUNNING_ON_VALGRIND; }
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
