// Within the module only: what lb_sampler_init_dist() (llamabox_helper.h) makes.
#pragma once

#include "llamabox_helper.h"

// Its next random number, from 0 to below 1: what it draws with when it is applied.
double dist_uniform(struct llama_sampler * dist);
