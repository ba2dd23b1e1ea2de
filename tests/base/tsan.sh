#!/bin/sh
# Runs a ThreadSanitizer program. gcc 12's runtime cannot live with the wide address randomisation of
# newer kernels; then it is run without. Where that is forbidden (some containers) it is skipped, 77.
if setarch -R true 2>/dev/null; then
    exec setarch -R "$1"
fi
log=$("$1" 2>&1)
status=$?
echo "$log"
case $log in *"unexpected memory mapping"*) exit 77 ;; esac
exit $status
