"""Where points are added and removed. Every strategy keeps gsplat's Strategy protocol (lpm.strategy.base)."""
