// The keeper's client has a room of its own, so that it builds without the rest of the shell.
#pragma once

#include "runtime/worker/keeper_client/keeper_client.h"  // IWYU pragma: export
