// For wheels: functions that glibc 2.27 and 2.29 have in new versions, in those that every glibc has. The new ones only
// leave out the wrapper that sets errno, which -fno-math-errno says nobody reads.
#pragma once
#define LPM_OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5")
LPM_OLD(exp);
LPM_OLD(log);
LPM_OLD(pow);
LPM_OLD(expf);
LPM_OLD(logf);
LPM_OLD(powf);
