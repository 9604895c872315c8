"""Training on real scenes reaches what it should; the figures of benchmarks/results in small."""

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["adc", "absgrad", "mcmc", "lpm", "igs", "fastgs", "steepgs", "conegs"])
def test_fox_quarter_size(make_trainer, real_data, strategy):
    trainer = make_trainer("fox", 800, data=real_data / "fox", scale=0.25, strategy=strategy, max_points=20_000)
    start = trainer.pipeline.model.num_points
    trainer.train()
    metrics = trainer.pipeline.get_average_eval_image_metrics()
    print(f"{strategy}: {metrics['psnr']:.2f} dB, {trainer.pipeline.model.num_points:,} points")
    assert start < trainer.pipeline.model.num_points <= 20_000
    assert metrics["psnr"] > 26
