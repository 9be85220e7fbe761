// All of PESC's C++ interface.
#pragma once

#include "pesc/client.h"
#include "pesc/job.h"
#include "pesc/result.h"
#include "pesc/version.h"
