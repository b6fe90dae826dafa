"""What adm-recon registers: cards only, no torch."""

from adcore.cards import BackboneCard, ModelCard
from adcore.hookspecs import hookimpl

_TEXTURES = ("textures folder such as DTD (optional; procedural textures otherwise)",)
_DRAEM = {
    "spellings": {"anomaly_source_path": "textures", "sspcab_lambda": "sspcab_weight"},
    "licence": "Apache-2.0",
    "cost": "heavy",
    "size_multiple": 32,
    "target": "adm_recon.draem:DRAEM",
    "family": "reconstruction",
    "title": "DRAEM",
    "epochs": 10,
    "batch_size": 8,
    "normalization": "none",
    "needs": _TEXTURES,
}
_DRAEM_PAPER = (
    "Zavrtanik et al., DRAEM: A Discriminatively Trained Reconstruction Embedding for Surface Anomaly Detection, "
    "ICCV 2021"
)
_SEVNET = {
    "spellings": {"severity_loss_type": "severity_loss", "severity_head_pooling_type": "severity_head"},
    "licence": "Apache-2.0",
    "cost": "heavy",
    "size_multiple": 32,
    "target": "adm_recon.draem_sevnet:DRAEMSevNet",
    "family": "reconstruction",
    "title": "DRAEM-SevNet",
    "whole_image": "its severity head sees the image as a whole, with black outside of the region",
    "paper": f"no paper of its own; extends {_DRAEM_PAPER}",
    "year": 2025,
    "summary": "DRAEM on cut-paste anomalies of known severity, which a head on its encoder learns to tell.",
    "epochs": 50,
    "batch_size": 16,
    "normalization": "none",
}


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    return [
        ModelCard(
            name="autoencoder",
            target="adm_recon.autoencoder:Autoencoder",
            family="reconstruction",
            title="Convolutional autoencoder",
            paper="Bergmann et al., Improving Unsupervised Defect Segmentation by Applying Structural Similarity to "
            "Autoencoders, VISAPP 2019",
            year=2019,
            summary="Reconstructs normal images through a narrow latent; the map is what it could not reconstruct.",
            config={"latent": 128},
            channels="any",
            licence="Apache-2.0",
            size_multiple=32,
            epochs=50,
            batch_size=16,
            normalization="none",
        ),
        ModelCard(
            name="ganomaly",
            target="adm_recon.ganomaly:GANomaly",
            family="reconstruction",
            title="GANomaly",
            whole_image="it describes an image as a whole, with black outside of the region",
            paper="Akcay et al., GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, ACCV 2018",
            year=2018,
            summary="A generator encodes an image, decodes it and encodes it again; the score is how far the two codes are.",
            config={"n_features": 64, "latent": 256},
            channels="any",
            licence="Apache-2.0",
            epochs=20,
            batch_size=8,
            no_tiles="it describes an image as a whole",
            normalization="none",
        ),
        ModelCard(
            name="draem",
            paper=_DRAEM_PAPER,
            year=2021,
            summary="Repairs synthetic anomalies, then segments them from the image beside its repair.",
            published="98.0 / 97.3",
            **_DRAEM,
        ),
        ModelCard(
            name="draem-sspcab",
            config={"sspcab": True},
            paper=_DRAEM_PAPER
            + "; Ristea et al., Self-Supervised Predictive Convolutional Attentive Block for Anomaly Detection, CVPR 2022",
            year=2022,
            summary="DRAEM whose bottleneck must predict each masked position from its surroundings.",
            **_DRAEM,
        ),
        ModelCard(name="draem-sevnet", **_SEVNET),
        ModelCard(name="draem-sevnet-multiscale", config={"multiscale": True}, **_SEVNET),
        ModelCard(
            name="dsr",
            target="adm_recon.dsr:DSR",
            family="reconstruction",
            title="DSR",
            paper="Zavrtanik et al., DSR: A Dual Subspace Re-Projection Network for Surface Anomaly Detection, ECCV 2022",
            year=2022,
            summary="Makes anomalies in the latent space of a discrete autoencoder, and learns to restore and to find them.",
            licence="Apache-2.0",
            cost="heavy",
            size_multiple=32,
            config={"latent_anomaly_strength": 0.2, "embedding_dim": 128, "num_embeddings": 4096},
            epochs=50,
            batch_size=8,
            normalization="none",
            optional_backbones=("dsr_autoencoder",),
            needs=("weights dsr_autoencoder (optional: vq_weights=pretrained; trained first otherwise)",),
            published="98.2",
        ),
    ]


@hookimpl
def adcore_register_backbones() -> list[BackboneCard]:
    file = "vq_model_pretrained_128_4096.pckl"
    return [
        BackboneCard(
            name="dsr_autoencoder",
            architecture="two_level_vq_128_4096",
            target="adm_recon.vqvae:TwoLevelVQ",
            options={"count": 4096, "dim": 128},
            filenames=(file, f"dsr/{file}", "dsr_autoencoder.safetensors"),
            source="https://github.com/open-edge-platform/anomalib/releases/download/dsr_pretrained_weights/"
            f"dsr_vq_model_pretrained.zip (it holds {file})",
            licence="as its authors publish it, trained on ImageNet",
            size_mb=12,
            mean=(0.0, 0.0, 0.0),  # it takes values in [0, 1]
            std=(1.0, 1.0, 1.0),
        )
    ]
